// Processes and their streams, as the unmodified JavaScript SDK sees them.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Sandbox } from "@deno/sandbox";
import { decoder, outputOf, withSandbox } from "./support.mjs";

let sandbox;
before(async () => {
  sandbox = await Sandbox.create();
});
after(() => sandbox.close());

test("two sandboxes at once each get their own complete output", async () => {
  await withSandbox({}, async (other) => {
    const rounds = Array.from({ length: 40 }, (_, round) => round);
    const outputs = await Promise.all(rounds.flatMap((round) => [
      outputOf(sandbox, "echo", [`one ${round}`]),
      outputOf(other, "echo", [`two ${round}`]),
    ]));
    const expected = rounds.flatMap((round) => [`one ${round}\n`, `two ${round}\n`]);
    assert.deepEqual(outputs, expected);
  });
});

test("stdin reaches the process, and closing it is its end", async () => {
  const child = await sandbox.spawn("cat", { stdin: "piped", stdout: "piped", stderr: "null" });
  const writer = child.stdin.getWriter();
  const bytes = new Uint8Array(300_000).map((_, index) => index % 251);
  await writer.write(bytes.subarray(0, 100));
  await writer.write(bytes.subarray(100));
  await writer.close();
  const { status, stdout } = await child.output();
  assert.equal(status.success, true);
  assert.deepEqual(stdout, bytes);
});

test("input that nobody reads is refused when the process has ended", async () => {
  const child = await sandbox.spawn("true", { stdin: "piped", stdout: "null", stderr: "null" });
  await child.status;
  const writer = child.stdin.getWriter();
  await assert.rejects(async () => {
    const deadline = Date.now() + 10_000;
    while (Date.now() < deadline) {
      await writer.write(new Uint8Array(10));
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  });
});

test("stdout and stderr are apart, and null has no stream", async () => {
  const child = await sandbox.spawn("sh", {
    args: ["-c", "echo out; echo err >&2"],
    stdout: "piped",
    stderr: "piped",
  });
  const output = await child.output();
  assert.equal(output.stdoutText, "out\n");
  assert.equal(output.stderrText, "err\n");
  const silent = await sandbox.spawn("echo", { args: ["x"], stdout: "null", stderr: "null" });
  assert.equal(silent.stdout, null);
  assert.equal((await silent.status).success, true);
});

test("a stream that is cancelled stops, and its process goes on", async () => {
  const child = await sandbox.spawn("sh", {
    args: ["-c", "dd if=/dev/zero bs=1M count=30 2>/dev/null; exit 3"],
    stdout: "piped",
    stderr: "null",
  });
  const reader = child.stdout.getReader();
  await reader.read();
  await reader.cancel(new Error("enough"));
  assert.equal((await child.status).code, 3);
});

test("30 MiB of output arrive whole", async () => {
  const child = await sandbox.spawn("dd", {
    args: ["if=/dev/zero", "bs=1M", "count=30"],
    stdout: "piped",
    stderr: "null",
  });
  let bytes = 0;
  for await (const chunk of child.stdout) {
    assert.ok(chunk.byteLength <= 65_536);
    bytes += chunk.byteLength;
  }
  assert.equal(bytes, 30 * 1024 * 1024);
  assert.equal((await child.status).success, true);
});

test("exit codes and signals", async () => {
  const failed = await sandbox.spawn("sh", { args: ["-c", "exit 7"], stdout: "null", stderr: "null" });
  assert.deepEqual(await failed.status, { success: false, code: 7, signal: null, oom: false });
  for (const [signal, code] of [["SIGTERM", 143], ["SIGKILL", 137]]) {
    const child = await sandbox.spawn("sleep", { args: ["1000"], stdout: "null", stderr: "null" });
    await child.kill(signal);
    assert.deepEqual(await child.status, { success: false, code, signal, oom: false });
    await child.kill();
  }
});

// `sh` reads ~/.bashrc: in a sandbox that is a plain process, that would be the host's.
const shell = { skip: process.env.ISOLATION !== "gvisor" && "needs a real sandbox" };

test("sh with an abort signal", shell, async () => {
  // One option only: the SDK's builder forgets those before the last.
  await assert.rejects(async () => {
    await sandbox.sh`sleep 101`.signal(AbortSignal.timeout(300));
  }, { code: 143 });
});

test("sh runs in bash with the user's own words quoted, and sudo asks for nothing", shell, async () => {
  const words = "a  'b' $HOME";
  assert.equal(await sandbox.sh`printf %s ${words}`.text(), words);
  assert.equal(await outputOf(sandbox, "sudo", ["-n", "id", "-u"]), "0\n");
});

test("a missing program is NotFound", async () => {
  await assert.rejects(sandbox.spawn("no-such-program"), { code: "ENOENT" });
  assert.equal(await outputOf(sandbox, "echo", ["alive"]), "alive\n");
});

test("all byte values survive", async () => {
  const child = await sandbox.spawn("cat", { stdin: "piped", stdout: "piped", stderr: "null" });
  const writer = child.stdin.getWriter();
  const bytes = Uint8Array.from({ length: 256 }, (_, value) => value);
  await writer.write(bytes);
  await writer.close();
  assert.deepEqual((await child.output()).stdout, bytes);
  assert.equal(decoder.decode(bytes.subarray(65, 68)), "ABC");
});

test("100 spawns at once", async () => {
  const numbers = Array.from({ length: 100 }, (_, number) => String(number));
  const outputs = await Promise.all(numbers.map((number) => outputOf(sandbox, "echo", [number])));
  assert.deepEqual(outputs, numbers.map((number) => `${number}\n`));
});
