// Opening and closing, as the unmodified JavaScript SDK sees it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Client, ConnectionClosedError, Sandbox } from "@deno/sandbox";
import { outputOf, withSandbox } from "./support.mjs";

const ID = /^sbx_[a-z]{3}_[0-9a-hjkmnp-z]{20}$/;

/** The SDK logs failed upgrades; here they are expected. */
async function quietly(work) {
  const { error } = console;
  console.error = () => {};
  try {
    return await work();
  } finally {
    console.error = error;
  }
}

test("the ID comes from the upgrade, on create and on connect", async () => {
  await withSandbox({}, async (first) => {
    assert.match(first.id, ID);
    const second = await Sandbox.connect(first.id);
    assert.equal(second.id, first.id);
    assert.equal(await outputOf(second, "echo", ["hi"]), "hi\n");
    await second.close();
    assert.equal(await outputOf(first, "echo", ["still"]), "still\n");
  });
});

test("a wrong token is an InvalidTokenError", async () => {
  await quietly(() =>
    assert.rejects(Sandbox.create({ token: "ddo_wrong" }), { name: "InvalidTokenError" })
  );
});

test("unknown and ended sandboxes have status and code", async () => {
  await quietly(() =>
    assert.rejects(Sandbox.connect("sbx_ord_00000000000000000000"), {
      status: 404,
      code: "SANDBOX_NOT_FOUND",
      traceId: /^[0-9a-f]{32}$/,
    })
  );
  const sandbox = await Sandbox.create();
  await sandbox.kill();
  await quietly(() =>
    assert.rejects(Sandbox.connect(sandbox.id), { status: 400, code: "SANDBOX_ALREADY_TERMINATED" })
  );
});

test("kill resolves, closes, and ends what is under way", async () => {
  const sandbox = await Sandbox.create();
  const child = await sandbox.spawn("sleep", { args: ["1000"], stdout: "piped", stderr: "null" });
  const ended = assert.rejects(child.status, /terminated/);
  await sandbox.kill();
  await ended;
  assert.equal(await new Response(child.stdout).text(), "");
  await sandbox.closed;
  await assert.rejects(sandbox.fs.readTextFile("/etc/passwd"), (error) => error instanceof ConnectionClosedError);
});

test("env of create is there for the first process", async () => {
  await withSandbox({ env: { FIRST_ONE: "1", SECOND: "é" } }, async (sandbox) => {
    assert.equal(await outputOf(sandbox, "printenv", ["FIRST_ONE"]), "1\n");
    assert.equal(await outputOf(sandbox, "printenv", ["SECOND"]), "é\n");
    assert.equal(await sandbox.env.get("NOT_THERE"), undefined);
    await sandbox.env.delete("FIRST_ONE");
    assert.equal((await sandbox.env.toObject()).FIRST_ONE, undefined);
  });
});

test("labels with Latin-1 letters, and the listing by them", async () => {
  const client = new Client();
  await withSandbox({ labels: { who: "é", "a b": "c" } }, async (sandbox) => {
    const found = await client.sandboxes.list({ labels: { who: "é", "a b": "c" } });
    const running = found.filter((one) => one.status === "running");
    assert.deepEqual(running.map((one) => one.id), [sandbox.id]);
    assert.ok(running[0].createdAt instanceof Date);
    assert.deepEqual(await client.sandboxes.list({ labels: { who: "nobody" } }), []);
  });
});

test("a duration survives its clients, is extended, and ends", async () => {
  const first = await Sandbox.create({ timeout: "60s" });
  await first.close();
  const second = await Sandbox.connect(first.id);
  const end = await second.extendTimeout("10m");
  assert.ok(end.getTime() > Date.now() + 500_000);
  await second.kill();
});

test("at its end, calls are answered and the connection closes", async () => {
  const sandbox = await Sandbox.create({ timeout: "2s" });
  const child = await sandbox.spawn("sleep", { args: ["1000"], stdout: "null", stderr: "null" });
  await assert.rejects(child.status, /terminated/);
  await sandbox.closed;
});

test("bad requests say what is wrong", async () => {
  const refused = (options, pattern) =>
    quietly(() => assert.rejects(Sandbox.create(options), { status: 400, message: pattern }));
  await refused({ labels: Object.fromEntries("abcdef".split("").map((key) => [key, ""])) }, /label/);
  await refused({ secrets: { KEY: { hosts: [], value: "x" } } }, /hosts/);
});

test("what is not there yet is an error that says so", async () => {
  await withSandbox({}, async (sandbox) => {
    await assert.rejects(sandbox.exposeHttp({ port: 8000 }), /NOT_SUPPORTED/);
    await assert.rejects(sandbox.fs.realPath("/"), /Method not found/);
    const client = new Client();
    await assert.rejects(client.volumes.list(), { code: "NOT_SUPPORTED" });
  });
});

test("close answers promptly, and an abort of a finished call is no error", async () => {
  const sandbox = await Sandbox.create();
  const controller = new AbortController();
  await sandbox.fs.writeTextFile("/tmp/skerry-js-abort", "x", { signal: controller.signal });
  controller.abort();
  await sandbox.fs.remove("/tmp/skerry-js-abort");
  await sandbox.close();
});
