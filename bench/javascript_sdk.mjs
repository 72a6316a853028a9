// Measures with the official JavaScript SDK against whatever endpoint the environment names; prints one JSON object.
// Usage: node javascript_sdk.mjs create|transfer TIMES PAUSE_MS
import { createRequire } from "node:module";
import { performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";

const require = createRequire(new URL("../tests/js/package.json", import.meta.url));
const { Sandbox } = require("@deno/sandbox");
const [what, times, pauseMs] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const MIB = 1024 * 1024;
const SIZE_MIB = 64;

async function createAndRun() {
  const started = performance.now();
  const sandbox = await Sandbox.create();
  const created = performance.now();
  const child = await sandbox.spawn("echo", { args: ["hello"], stdout: "piped", stderr: "null" });
  const text = await new Response(child.stdout).text();
  await child.status;
  const ran = performance.now();
  await sandbox.close();
  if (text !== "hello\n") throw new Error(`unexpected output ${JSON.stringify(text)}`);
  return [created - started, ran - started];
}

async function measureCreate() {
  await createAndRun();
  const results = [];
  for (let i = 0; i < times; i++) {
    await sleep(pauseMs);
    results.push(await createAndRun());
  }
  return { create_ms: results.map((r) => r[0]), create_and_run_ms: results.map((r) => r[1]) };
}

async function rate(action) {
  const started = performance.now();
  await action();
  return SIZE_MIB / ((performance.now() - started) / 1000);
}

async function measureTransfer() {
  const sandbox = await Sandbox.create();
  const bytes = new Uint8Array(SIZE_MIB * MIB).fill(7);
  const stream = () => new Blob([bytes]).stream();
  const rates = { stream_up: [], bytes_up: [], read_file: [] };
  for (let i = 0; i < times; i++) {
    rates.stream_up.push(await rate(() => sandbox.fs.writeFile("/tmp/stream", stream())));
    rates.bytes_up.push(await rate(() => sandbox.fs.writeFile("/tmp/bytes", bytes)));
    rates.read_file.push(await rate(() => sandbox.fs.readFile("/tmp/bytes")));
  }
  await sandbox.close();
  return rates;
}

console.log(JSON.stringify(await (what === "create" ? measureCreate() : measureTransfer())));
