// Files, as the unmodified JavaScript SDK sees them.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Sandbox } from "@deno/sandbox";
import { outputOf, withPlace } from "./support.mjs";

let sandbox;
before(async () => {
  sandbox = await Sandbox.create();
});
after(() => sandbox.close());

test("text files", () =>
  withPlace(sandbox, async (place) => {
    const path = `${place}/text`;
    await sandbox.fs.writeTextFile(path, "Grüße", { mode: 0o600 });
    await sandbox.fs.writeTextFile(path, "!", { append: true });
    assert.equal(await sandbox.fs.readTextFile(path), "Grüße!");
    assert.equal((await sandbox.fs.stat(path)).mode & 0o777, 0o600);
    await assert.rejects(sandbox.fs.writeTextFile(path, "", { createNew: true }), { code: "EEXIST" });
    await assert.rejects(sandbox.fs.writeTextFile(`${place}/no`, "", { create: false }), { code: "ENOENT" });
    await assert.rejects(sandbox.fs.readTextFile(`${place}/no`), { code: "ENOENT" });
  }));

test("files from streams", () =>
  withPlace(sandbox, async (place) => {
    const chunks = Array.from({ length: 50 }, (_, index) => new Uint8Array(10_000).fill(index));
    await sandbox.fs.writeFile(`${place}/bytes`, ReadableStream.from(chunks));
    assert.deepEqual(await sandbox.fs.readFile(`${place}/bytes`), new Uint8Array(Buffer.concat(chunks)));
    await sandbox.fs.writeTextFile(`${place}/text`, ReadableStream.from(["ä", "ö", "ü"]));
    assert.equal(await sandbox.fs.readTextFile(`${place}/text`), "äöü");
  }));

test("a 50 MB message in, a 5 MB message out", () =>
  withPlace(sandbox, async (place) => {
    const bytes = new Uint8Array(50_000_000).map((_, index) => (index * 7) & 255);
    await sandbox.fs.writeFile(`${place}/large`, bytes);
    assert.equal((await sandbox.fs.stat(`${place}/large`)).size, bytes.length);
    await sandbox.fs.writeFile(`${place}/middle`, bytes.subarray(0, 5_000_000));
    assert.deepEqual(await sandbox.fs.readFile(`${place}/middle`), bytes.subarray(0, 5_000_000));
    assert.deepEqual(await sandbox.fs.readFile(`${place}/large`), bytes);
  }));

test("100 reads at once all answer", () =>
  withPlace(sandbox, async (place) => {
    await sandbox.fs.writeTextFile(`${place}/file`, "same");
    const texts = await Promise.all(
      Array.from({ length: 100 }, () => sandbox.fs.readTextFile(`${place}/file`)),
    );
    assert.deepEqual(new Set(texts), new Set(["same"]));
  }));

test("100 large reads and writes at once all answer", () =>
  withPlace(sandbox, async (place) => {
    const bytes = new Uint8Array(400_000).fill(7);
    const numbers = Array.from({ length: 100 }, (_, number) => number);
    await Promise.all(
      numbers.map((number) => sandbox.fs.writeFile(`${place}/${number}`, ReadableStream.from([bytes]))),
    );
    const read = await Promise.all(numbers.map((number) => sandbox.fs.readFile(`${place}/${number}`)));
    assert.ok(read.every((found) => Buffer.from(found).equals(Buffer.from(bytes))));
  }));

test("stat has every member, with dates", () =>
  withPlace(sandbox, async (place) => {
    await sandbox.fs.writeTextFile(`${place}/file`, "12345");
    await outputOf(sandbox, "ln", ["-s", "file", `${place}/link`]);
    const info = await sandbox.fs.stat(`${place}/link`);
    assert.equal(Object.keys(info).length, 21);
    for (const name of ["mtime", "atime", "birthtime", "ctime"]) assert.ok(info[name] instanceof Date);
    assert.equal(info.size, 5);
    assert.equal(info.isSymlink, false);
    const link = await sandbox.fs.lstat(`${place}/link`);
    assert.equal(link.isSymlink, true);
  }));

test("directories", () =>
  withPlace(sandbox, async (place) => {
    await sandbox.fs.mkdir(`${place}/a/b`, { recursive: true, mode: 0o700 });
    await assert.rejects(sandbox.fs.mkdir(`${place}/a`), { code: "EEXIST" });
    await sandbox.fs.mkdir(`${place}/a`, { recursive: true });
    await sandbox.fs.writeTextFile(`${place}/a/file`, "");
    const entries = await Array.fromAsync?.(sandbox.fs.readDir(`${place}/a`)) ??
      await collect(sandbox.fs.readDir(`${place}/a`));
    assert.deepEqual(entries.map((entry) => [entry.name, entry.isFile, entry.isDirectory]).sort(), [
      ["b", false, true],
      ["file", true, false],
    ]);
    await assert.rejects(sandbox.fs.remove(`${place}/a`), { code: "ENOTEMPTY" });
    await sandbox.fs.remove(`${place}/a`, { recursive: true });
  }));

test("a read is aborted by its signal", () =>
  withPlace(sandbox, async (place) => {
    await outputOf(sandbox, "mkfifo", [`${place}/fifo`]);
    const controller = new AbortController();
    const write = sandbox.fs.writeFile(
      `${place}/file`,
      new ReadableStream({ pull: () => new Promise(() => {}) }),
      { signal: controller.signal },
    );
    const aborted = assert.rejects(write, { name: "AbortError" });
    await sandbox.fs.readTextFile("/etc/hostname");
    controller.abort();
    await aborted;
  }));

async function collect(items) {
  const found = [];
  for await (const item of items) found.push(item);
  return found;
}
