/**
 * A disk that forgets, behind the log's port to the file system: what was not synced is in this process's memory only, so
 * that SIGKILL of the process is to its data what a power cut is to a machine.
 *
 *   write ───▶ memory ──datasync──▶ the file's bytes on the disk, but under no name yet
 *   create, makeFolder, replace, rename, remove ───▶ memory ──syncFolder──▶ the name on the disk, or gone from it
 *
 * A kernel writes some things back before it is asked to. `random` draws what gets through early: a part of a write, a
 * name, a replaced file whole or torn, a removal. The process itself sees what it would see on any file system.
 *
 * Files without a name lie in `<root>.unsynced`, which is emptied at the next start.
 */
import * as fs from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { codeOf, type FileOperations, nodeFiles, type OpenFile } from '../../edge-gateway/log/files.ts';

export interface ForgetfulFiles extends FileOperations {
  /** Writes all of it through, and forgets nothing from now on. */
  keep(): Promise<void>;
}

/** How likely each gets through although nobody synced it. */
const EARLY = { write: 0.2, name: 0.3, replace: 0.3, tornReplace: 0.05, remove: 0.5 };
/** The port allows short writes, so there are some. */
const SHORT_WRITE = 0.1;

/** A file that was made here, or a folder. */
type Entry =
  | { readonly kind: 'file'; readonly image: Image; real: boolean; named: boolean }
  | { readonly kind: 'folder'; real: boolean; named: boolean }
  | { readonly kind: 'replaced'; readonly content: Buffer; named: boolean; readonly real: false };

interface Image {
  /** Where its bytes are on the disk. */
  place: string;
  size: number;
  /** Written and not synced, in the order of the writes. */
  readonly pending: { readonly position: number; readonly bytes: Buffer }[];
  syncing: Promise<void>;
}

const systemError = (code: string, path: string): Error =>
  Object.assign(new Error(`${code}: ${path}`), { code });

/**
 * @param root exists from then on; what is beside or above it is left to the real file system
 * @param random numbers of [0, 1)
 * @param syncMs how long a sync of a file takes at least, as on a slow card
 */
export async function forgetfulFiles(
  root: string,
  random: () => number,
  syncMs = 0,
): Promise<ForgetfulFiles> {
  const side = `${root}.unsynced`;
  await fs.rm(side, { recursive: true, force: true });
  await fs.mkdir(side, { recursive: true });
  await fs.mkdir(root, { recursive: true });
  const entries = new Map<string, Entry>();
  /** Removed, and still on the disk. */
  const gone = new Set<string>();
  let made = 0;
  let keeping = false;
  const early = (share: number): boolean => keeping || random() < share;

  const isReal = (folder: string): boolean => entries.get(folder)?.real ?? true;
  const childrenOf = (folder: string) => [...entries].filter(([path]) => dirname(path) === folder);

  async function exists(path: string): Promise<boolean> {
    if (entries.has(path)) return true;
    if (gone.has(path) || !isReal(dirname(path))) return false;
    return fs.stat(path).then(
      () => true,
      () => false,
    );
  }

  async function demandFolder(path: string): Promise<void> {
    if (!(await exists(path))) throw systemError('ENOENT', path);
  }

  async function writeThrough(place: string, position: number, bytes: Buffer): Promise<void> {
    const handle = await fs.open(place, 'r+');
    await handle.write(bytes, 0, bytes.length, position).finally(() => handle.close());
  }

  /** Bytes that lie under a name which is about to go, and have another one by now. */
  async function rescue(path: string, except?: Image): Promise<void> {
    for (const entry of entries.values()) {
      if (entry.kind !== 'file' || entry.image === except || entry.image.place !== path) continue;
      const place = join(side, String(++made));
      await fs.rename(path, place);
      entry.image.place = place;
    }
  }

  /** Gives an entry its name on the disk; its folder has one. */
  async function makeReal(path: string, entry: Entry): Promise<void> {
    entry.named = true;
    if (entry.kind === 'replaced') {
      await nodeFiles.replace(path, entry.content.toString('utf8'));
      // A younger content may have come meanwhile.
      if (entries.get(path) === entry) entries.delete(path);
    } else if (entry.kind === 'file' && !entry.real) {
      await rescue(path, entry.image);
      await fs.rename(entry.image.place, path);
      entry.image.place = path;
      entry.real = true;
    } else if (entry.kind === 'folder' && !entry.real) {
      await fs.mkdir(path, { recursive: true });
      entry.real = true;
      for (const [child, of] of childrenOf(path)) if (of.named) await makeReal(child, of);
    }
    gone.delete(path);
  }

  async function removeReal(path: string): Promise<void> {
    if (!gone.delete(path)) return;
    await rescue(path);
    await fs.rm(path, { recursive: true, force: true });
  }

  function fileOf(image: Image): OpenFile {
    return {
      async write(buffer, offset, length, position) {
        const part = length > 1 && random() < SHORT_WRITE ? Math.ceil(length / 2) : length;
        const bytes = Buffer.from(buffer.subarray(offset, offset + part));
        image.pending.push({ position, bytes });
        image.size = Math.max(image.size, position + part);
        if (early(EARLY.write)) {
          const from = keeping ? 0 : Math.floor(random() * part);
          const to = keeping ? part : from + Math.ceil(random() * (part - from));
          await writeThrough(image.place, position + from, bytes.subarray(from, to));
        }
        return part;
      },
      read: (buffer, offset, length, position) => readImage(image, buffer, offset, length, position),
      datasync() {
        image.syncing = image.syncing.catch(() => undefined).then(() => syncImage(image));
        return image.syncing;
      },
      close: async () => {},
    };
  }

  async function syncImage(image: Image): Promise<void> {
    const covered = image.pending.length;
    if (syncMs > 0) await sleep(syncMs);
    const handle = await fs.open(image.place, 'r+').catch(error => {
      // Removed while it was open.
      const isThere = [...entries.values()].some(entry => entry.kind === 'file' && entry.image === image);
      if (codeOf(error) === 'ENOENT' && !isThere) return null;
      throw error;
    });
    if (!handle) return;
    try {
      for (const { position, bytes } of image.pending.slice(0, covered)) {
        await handle.write(bytes, 0, bytes.length, position);
      }
      await handle.datasync();
    } finally {
      await handle.close();
    }
    image.pending.splice(0, covered);
  }

  async function readImage(
    image: Image,
    buffer: Uint8Array,
    offset: number,
    length: number,
    position: number,
  ): Promise<number> {
    const count = Math.max(0, Math.min(length, image.size - position));
    if (count === 0) return 0;
    const target = Buffer.from(buffer.buffer, buffer.byteOffset + offset, count);
    // Before the bytes on the disk are read: a sync may take them off the list meanwhile.
    const pending = [...image.pending];
    const handle = await fs.open(image.place, 'r');
    const { bytesRead } = await handle.read(target, 0, count, position).finally(() => handle.close());
    target.fill(0, bytesRead);
    for (const { position: at, bytes } of pending) {
      const from = Math.max(at, position);
      const to = Math.min(at + bytes.length, position + count);
      if (from < to) target.set(bytes.subarray(from - at, to - at), from - position);
    }
    return count;
  }

  const readOnly = (content: Buffer): OpenFile => ({
    write: () => Promise.reject(systemError('EBADF', 'opened for reading')),
    read: async (buffer, offset, length, position) => {
      const part = content.subarray(position, position + length);
      buffer.set(part, offset);
      return part.length;
    },
    datasync: async () => {},
    close: async () => {},
  });

  const files: ForgetfulFiles = {
    async openToRead(path) {
      const entry = entries.get(path);
      if (entry?.kind === 'file') return fileOf(entry.image);
      if (entry?.kind === 'replaced') return readOnly(entry.content);
      if (!(await exists(path))) throw systemError('ENOENT', path);
      return nodeFiles.openToRead(path);
    },

    async create(path) {
      await demandFolder(dirname(path));
      if (await exists(path)) throw systemError('EEXIST', path);
      const place = join(side, String(++made));
      await (await nodeFiles.create(place)).close();
      const image: Image = { place, size: 0, pending: [], syncing: Promise.resolve() };
      const entry: Entry = { kind: 'file', image, real: false, named: false };
      entries.set(path, entry);
      if (isReal(dirname(path)) && early(EARLY.name)) await makeReal(path, entry);
      return fileOf(image);
    },

    async makeFolder(path) {
      if (await exists(path)) return;
      if (!path.startsWith(root)) return nodeFiles.makeFolder(path);
      await files.makeFolder(dirname(path));
      const entry: Entry = { kind: 'folder', real: false, named: false };
      entries.set(path, entry);
      if (isReal(dirname(path)) && early(EARLY.name)) await makeReal(path, entry);
    },

    async list(path) {
      await demandFolder(path);
      const onDisk = isReal(path) ? await nodeFiles.list(path) : [];
      const names = onDisk.filter(name => !gone.has(join(path, name)));
      return [...new Set([...names, ...childrenOf(path).map(([child]) => basename(child))])];
    },

    async size(path) {
      const entry = entries.get(path);
      if (entry?.kind === 'file') return entry.image.size;
      if (entry?.kind === 'replaced') return entry.content.length;
      if (!(await exists(path))) throw systemError('ENOENT', path);
      return nodeFiles.size(path);
    },

    inode: async path => (isReal(path) ? nodeFiles.inode(path) : 0),

    async readWhole(path) {
      const entry = entries.get(path);
      if (entry?.kind === 'replaced') return entry.content;
      if (entry?.kind !== 'file') {
        if (!(await exists(path))) throw systemError('ENOENT', path);
        return nodeFiles.readWhole(path);
      }
      const whole = Buffer.alloc(entry.image.size);
      await readImage(entry.image, whole, 0, whole.length, 0);
      return whole;
    },

    async replace(path, text) {
      await demandFolder(dirname(path));
      const content = Buffer.from(text);
      const entry: Entry = { kind: 'replaced', content, real: false, named: false };
      entries.set(path, entry);
      if (!isReal(dirname(path))) return;
      if (early(EARLY.replace)) await makeReal(path, entry);
      else if (early(EARLY.tornReplace)) {
        // The new name got through before the bytes.
        await fs.writeFile(path, content.subarray(0, Math.floor(random() * content.length)));
      }
    },

    async rename(from, to) {
      const before = entries.get(from);
      await demandFolder(dirname(to));
      const size = await files.size(from);
      const image: Image =
        before?.kind === 'file'
          ? before.image
          : { place: from, size, pending: [], syncing: Promise.resolve() };
      const over = entries.get(to);
      if (over?.kind === 'file' && !over.real) await fs.unlink(over.image.place);
      const entry: Entry =
        before?.kind === 'replaced'
          ? { ...before, named: false }
          : { kind: 'file', image, real: false, named: false };
      entries.delete(from);
      entries.set(to, entry);
      if (isReal(dirname(from))) gone.add(from);
      if (isReal(dirname(to)) && early(EARLY.name)) await makeReal(to, entry);
    },

    async remove(path) {
      if (!(await exists(path))) throw systemError('ENOENT', path);
      const entry = entries.get(path);
      entries.delete(path);
      if (entry?.kind === 'file' && !entry.real) await fs.unlink(entry.image.place);
      if (!isReal(dirname(path))) return;
      gone.add(path);
      if (early(EARLY.remove)) await removeReal(path);
    },

    async removeFolder(path) {
      if ((await files.list(path)).length > 0) throw systemError('ENOTEMPTY', path);
      const entry = entries.get(path);
      entries.delete(path);
      if (entry && !entry.real) return;
      gone.add(path);
      if (early(EARLY.remove)) await removeReal(path);
    },

    async syncFolder(path) {
      await demandFolder(path);
      const covered = childrenOf(path);
      const removed = [...gone].filter(child => dirname(child) === path);
      if (!isReal(path)) {
        for (const [, entry] of covered) entry.named = true;
        return;
      }
      for (const [child, entry] of covered) await makeReal(child, entry);
      for (const child of removed) await removeReal(child);
      await nodeFiles.syncFolder(path);
    },

    async keep() {
      keeping = true;
      for (const entry of [...entries.values()]) {
        entry.named = true;
        if (entry.kind === 'file') await syncImage(entry.image);
      }
      // Folders above first; what is below them comes along.
      for (const [path, entry] of [...entries]) if (isReal(dirname(path))) await makeReal(path, entry);
      for (const path of [...gone]) await removeReal(path);
    },
  };
  return files;
}
