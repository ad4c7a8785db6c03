// `node peer.js PROTO TARGET AUTHORITY PICTURES…`: classifies pictures over TLS with the token that ANTHER_TOKEN holds,
// by calls at once and by a stream. Prints one JSON object.
const fs = require("fs");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [proto, target, authority, ...pictures] = process.argv.slice(2);
const { anther } = grpc.loadPackageDefinition(loader.loadSync(proto, { keepCase: true, longs: Number }));
const client = new anther.v1.ImageClassifier(target, grpc.credentials.createSsl(fs.readFileSync(authority)));
const metadata = new grpc.Metadata();
metadata.add("authorization", `Bearer ${process.env.ANTHER_TOKEN}`);
const requests = pictures.map((path, index) => ({ image: fs.readFileSync(path), id: `node-${index}` }));
const labelled = (answer) => [answer.id, answer.predictions[0].label];

const called = (request) =>
  new Promise((resolve, reject) =>
    client.Classify(request, metadata, (error, answer) => (error ? reject(error) : resolve(labelled(answer)))),
  );

const streamed = () =>
  new Promise((resolve, reject) => {
    const found = [];
    const stream = client.ClassifyStream(metadata);
    stream.on("data", (item) => found.push(labelled(item.answer)));
    stream.on("error", reject);
    stream.on("end", () => resolve(found.sort()));
    requests.forEach((request) => stream.write(request));
    stream.end();
  });

Promise.all([Promise.all(requests.map(called)), streamed()])
  .then(([calls, stream]) => console.log(JSON.stringify({ calls, stream })))
  .catch((error) => console.log(JSON.stringify({ code: grpc.status[error.code], message: error.details })))
  .finally(() => client.close());
