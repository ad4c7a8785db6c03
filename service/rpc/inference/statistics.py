"""What `service.core.statistics` counted and the registry refused, as the statistics extension has it."""

from anther.open_inference import open_inference_pb2 as pb
from bundle.errors import ModelNotFound, VersionNotFound
from service.core.statistics import Compute, Counts, Duration, Statistics
from service.rpc.inference.parameters import version_of
from service.rpc.inference.versions import Known, known_versions
from service.versions.registry import Registry


def model_statistics(
    request: pb.ModelStatisticsRequest, registry: Registry, statistics: Statistics
) -> pb.ModelStatisticsResponse:
    """Of all models where the request names none, of all versions likewise.

    Raises `ModelNotFound`, `VersionNotFound` or `InvalidArgument`.
    """
    known = _asked_for(request.name, version_of(request.version), known_versions(registry))
    return pb.ModelStatisticsResponse(
        model_stats=[_version(each, statistics.of((each.name, str(each.version)))) for each in known]
    )


def _asked_for(name: str, version: int, known: list[Known]) -> list[Known]:
    named = [each for each in known if name in ("", each.name)]
    if name and not named:
        raise ModelNotFound(name, sorted({each.name for each in known}))
    found = [each for each in named if version in (0, each.version)]
    if name and not found:
        raise VersionNotFound(name, version, [each.version for each in named])
    return found


def _version(known: Known, counts: Counts) -> pb.ModelStatistics:
    return pb.ModelStatistics(
        name=known.name,
        version=str(known.version),
        last_inference=counts.last_ms,
        inference_count=counts.images,
        execution_count=counts.runs,
        inference_stats=pb.InferStatistics(
            success=_duration(counts.success),
            fail=_duration(counts.fail),
            queue=pb.StatisticDuration(count=counts.compute.count, ns=counts.queue_ns),
            **_stages(counts.compute),
        ),
        batch_stats=[_batches(size, compute) for size, compute in sorted(counts.by_size.items())],
        reason=known.reason,
    )


def _batches(size: int, compute: Compute) -> pb.InferBatchStatistics:
    return pb.InferBatchStatistics(batch_size=size, **_stages(compute))


def _stages(compute: Compute) -> dict[str, pb.StatisticDuration]:
    return {
        "compute_input": pb.StatisticDuration(count=compute.count, ns=compute.before),
        "compute_infer": pb.StatisticDuration(count=compute.count, ns=compute.inside),
        "compute_output": pb.StatisticDuration(count=compute.count, ns=compute.after),
    }


def _duration(duration: Duration) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=duration.count, ns=duration.ns)
