from training.inference import speed


class Clock:
    """Time passes only where somebody works."""

    def __init__(self):
        self.now, self.order = 0.0, []

    def work(self, name, seconds):
        def answer(photo):
            self.order.append((name, photo))
            self.now += seconds(len(self.order))

        return answer

    def __call__(self):
        return self.now


def test_the_median_time_of_each_counts_and_the_first_round_does_not():
    clock = Clock()
    quick = clock.work("quick", lambda turn: 5.0 if turn < 3 else 0.002)
    slow = clock.work("slow", lambda turn: 5.0 if turn < 3 else 0.006)
    first, second = speed.compare(quick, slow, [b"a", b"b"], clock)
    assert (round(first, 6), round(second, 6)) == (2, 6)


def test_they_take_turns_on_the_same_photos():
    clock = Clock()
    speed.compare(clock.work("x", lambda turn: 0.5), clock.work("y", lambda turn: 0.5), [b"a", b"b"], clock)
    rounds = [clock.order[index : index + 2] for index in range(0, len(clock.order), 2)]
    assert rounds[:3] == [[("x", b"a"), ("y", b"a")], [("y", b"b"), ("x", b"b")], [("x", b"a"), ("y", b"a")]]
    assert len(rounds) == 11, "slow models are measured a few times"


def test_quick_models_are_measured_often_but_not_for_ever():
    clock = Clock()
    speed.compare(clock.work("x", lambda turn: 1e-6), clock.work("y", lambda turn: 1e-6), [b"a"], clock)
    assert len(clock.order) == 400
