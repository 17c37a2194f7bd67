/**
 * The few things that the log does with the file system, as a port: the real one is node:fs, the tests put
 * failing and forgetful disks behind it.
 */
import * as fs from 'node:fs/promises';

export interface OpenFile {
  /** @returns how many bytes were written, which may be fewer than asked for. */
  write(buffer: Uint8Array, offset: number, length: number, position: number): Promise<number>;
  /** @returns how many bytes were read; 0 at the end of the file. */
  read(buffer: Uint8Array, offset: number, length: number, position: number): Promise<number>;
  datasync(): Promise<void>;
  close(): Promise<void>;
}

/** Every function rejects with a node system error (`code`). */
export interface FileOperations {
  /** Opens an existing file for reading. */
  openToRead(path: string): Promise<OpenFile>;
  /** Makes a new file; rejects with EEXIST when there is one. */
  create(path: string): Promise<OpenFile>;
  /** Makes the folder and those above it; nothing happens when it is there. */
  makeFolder(path: string): Promise<void>;
  list(path: string): Promise<string[]>;
  /** Length in bytes. */
  size(path: string): Promise<number>;
  /** The number by which the file system knows it: a copy has another. */
  inode(path: string): Promise<number>;
  readWhole(path: string): Promise<Buffer>;
  /** Puts `content` where `path` is in one step; not durable before {@link syncFolder}. */
  replace(path: string, content: string): Promise<void>;
  /** In one step; not durable before {@link syncFolder}. */
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  removeFolder(path: string): Promise<void>;
  /** Makes what was created or renamed in the folder durable. */
  syncFolder(path: string): Promise<void>;
}

function wrap(handle: fs.FileHandle): OpenFile {
  return {
    write: async (buffer, offset, length, position) =>
      (await handle.write(buffer, offset, length, position)).bytesWritten,
    read: async (buffer, offset, length, position) =>
      (await handle.read(buffer, offset, length, position)).bytesRead,
    datasync: () => handle.datasync(),
    close: () => handle.close(),
  };
}

export const nodeFiles: FileOperations = {
  openToRead: async path => wrap(await fs.open(path, 'r')),
  create: async path => wrap(await fs.open(path, 'wx')),
  makeFolder: async path => void (await fs.mkdir(path, { recursive: true })),
  list: path => fs.readdir(path),
  size: async path => (await fs.stat(path)).size,
  inode: async path => (await fs.stat(path)).ino,
  readWhole: path => fs.readFile(path),
  replace: async (path, content) => {
    await fs.writeFile(`${path}.new`, content);
    await fs.rename(`${path}.new`, path);
  },
  rename: (from, to) => fs.rename(from, to),
  remove: path => fs.unlink(path),
  removeFolder: path => fs.rmdir(path),
  syncFolder: async path => {
    const handle = await fs.open(path, 'r');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  },
};

/** Writes all of `bytes` at `position`. Rejects as {@link OpenFile.write}. */
export async function writeFully(file: OpenFile, bytes: Uint8Array, position: number): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    done += await file.write(bytes, done, bytes.length - done, position + done);
  }
}

/** The code of a node system error, or '' for any other. */
export const codeOf = (error: unknown): string =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : '';
