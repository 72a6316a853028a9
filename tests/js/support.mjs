// What the test files share. The server's address and tokens come in the environment.
import assert from "node:assert/strict";
import { Sandbox } from "@deno/sandbox";

export const decoder = new TextDecoder();

/** Runs with a new sandbox, and closes it. */
export async function withSandbox(options, work) {
  const sandbox = await Sandbox.create(options);
  try {
    return await work(sandbox);
  } finally {
    await sandbox.close();
  }
}

/** Runs a program and returns what it wrote to stdout; it must succeed. */
export async function outputOf(sandbox, command, args = [], options = {}) {
  const child = await sandbox.spawn(command, { args, stdout: "piped", stderr: "null", ...options });
  const { status, stdoutText } = await child.output();
  assert.equal(status.success, true, `${command}: ${JSON.stringify(status)}`);
  return stdoutText;
}

/** A fresh directory inside the sandbox for the time of `work`. */
export async function withPlace(sandbox, work) {
  const path = `/tmp/skerry-js-${process.pid}-${Math.random().toString(36).slice(2)}`;
  await sandbox.fs.mkdir(path, { recursive: true });
  try {
    return await work(path);
  } finally {
    await sandbox.fs.remove(path, { recursive: true });
  }
}
