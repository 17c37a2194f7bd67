/**
 * Disks that fail and disks that forget, behind the log's port to the file system.
 *
 * `forgetfulFiles` works on real files and keeps beside them what a power cut would leave: of every file the bytes
 * that were fdatasynced and a random part of the others, of every folder the entries that were synced and some of the
 * others. `lies` make it forget what it had promised to keep, to show that the test would notice.
 */
import * as fs from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import type { FileOperations, OpenFile } from '../../../edge-gateway/log/files.ts';
import { nodeFiles } from '../../../edge-gateway/log/files.ts';

export const systemError = (code: string): Error => Object.assign(new Error(`${code}: made up`), { code });

/** The real files with single functions replaced. */
export function filesWith(o: {
  write?: (path: string, bytes: number) => void;
  datasync?: (path: string) => void;
  read?: (path: string, position: number, length: number) => void;
  create?: (path: string) => void;
  makeFolder?: (path: string) => void;
  remove?: (path: string) => void;
}): FileOperations {
  const wrap = (path: string, file: OpenFile): OpenFile => ({
    ...file,
    async write(buffer, offset, length, position) {
      o.write?.(path, length);
      return file.write(buffer, offset, length, position);
    },
    async read(buffer, offset, length, position) {
      o.read?.(path, position, length);
      return file.read(buffer, offset, length, position);
    },
    async datasync() {
      // The failing kernel has written, or not: the log must not care.
      await file.datasync();
      o.datasync?.(path);
    },
  });
  return {
    ...nodeFiles,
    openToRead: async path => wrap(path, await nodeFiles.openToRead(path)),
    async create(path) {
      o.create?.(path);
      return wrap(path, await nodeFiles.create(path));
    },
    async makeFolder(path) {
      o.makeFolder?.(path);
      return nodeFiles.makeFolder(path);
    },
    async remove(path) {
      o.remove?.(path);
      return nodeFiles.remove(path);
    },
  };
}

interface FileImage {
  bytes: Buffer;
  syncedBytes: number;
}

export interface ForgetfulFiles extends FileOperations {
  /** What is on the disk after a power cut now, as files below `target`. @param random 0 ≤ x < 1 */
  powerCut(target: string, random: () => number): () => Promise<void>;
}

export function forgetfulFiles(
  root: string,
  o: { beforeOperation?: () => void; lies?: 'fdatasync' | 'folder sync' } = {},
): ForgetfulFiles {
  const images = new Map<string, FileImage>();
  const folders = new Set<string>([root]);
  /** Paths whose entry in their folder is durable. */
  const entries = new Set<string>([root]);
  /** Removed, and as long as the folder is not synced maybe there again. */
  const removed = new Map<string, FileImage>();
  const count = () => o.beforeOperation?.();
  return {
    ...nodeFiles,
    async create(path) {
      count();
      const file = await nodeFiles.create(path);
      const image: FileImage = { bytes: Buffer.alloc(0), syncedBytes: 0 };
      images.set(path, image);
      return {
        ...file,
        async write(buffer, offset, length, position) {
          count();
          // Short writes are part of the contract.
          const part = length > 400 ? Math.ceil(length / 2) : length;
          const written = await file.write(buffer, offset, part, position);
          const grown = Buffer.alloc(Math.max(image.bytes.length, position + written));
          image.bytes.copy(grown);
          grown.set(buffer.subarray(offset, offset + written), position);
          image.bytes = grown;
          return written;
        },
        async datasync() {
          count();
          const covered = image.bytes.length;
          await file.datasync();
          count();
          if (o.lies !== 'fdatasync') image.syncedBytes = Math.max(image.syncedBytes, covered);
        },
      };
    },
    async makeFolder(path) {
      await nodeFiles.makeFolder(path);
      folders.add(path);
    },
    async rename(from, to) {
      count();
      await nodeFiles.rename(from, to);
      const image = images.get(from);
      if (!image) return;
      images.delete(from);
      images.set(to, image);
      entries.delete(to);
    },
    async remove(path) {
      count();
      await nodeFiles.remove(path);
      const image = images.get(path);
      if (image && entries.has(path)) removed.set(path, image);
      images.delete(path);
      entries.delete(path);
    },
    async syncFolder(path) {
      count();
      const covered = [...images.keys(), ...folders].filter(entry => dirname(entry) === path);
      await nodeFiles.syncFolder(path);
      count();
      if (o.lies === 'folder sync') return;
      for (const entry of covered) entries.add(entry);
      for (const entry of [...removed.keys()]) if (dirname(entry) === path) removed.delete(entry);
    },
    powerCut(target, random) {
      const survives = (path: string): boolean => entries.has(path) || random() < 0.5;
      const kept = new Map([...folders].map(folder => [folder, survives(folder)]));
      const contents: [string, Buffer][] = [];
      const back = [...removed].filter(([path]) => !images.has(path) && random() < 0.5);
      for (const [path, { bytes, syncedBytes }] of [...images, ...back]) {
        if (!kept.get(dirname(path)) || !(survives(path) || back.some(([gone]) => gone === path))) continue;
        const length = syncedBytes + Math.floor(random() * (bytes.length - syncedBytes + 1));
        const content = Buffer.from(bytes.subarray(0, length));
        // The length of a file may be written before its data.
        if (random() < 0.5) content.fill(0, syncedBytes + Math.floor(random() * (length - syncedBytes + 1)));
        contents.push([join(target, relative(root, path)), content]);
      }
      return async () => {
        for (const [path, content] of contents) {
          await fs.mkdir(dirname(path), { recursive: true });
          await fs.writeFile(path, content);
        }
      };
    },
  };
}
