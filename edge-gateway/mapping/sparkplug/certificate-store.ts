/**
 * Keeps certificates in their folder, `<data>/sparkplug/<node>-<id>.json`. A certificate is durable before the message
 * that needs it is taken into the log (A); a disk that refuses is tried again, and until then such messages wait with
 * the broker, as they do when the log's disk refuses.
 *
 * Bounded (F): at {@link FILES_MAX} files or {@link BYTES_MAX} bytes the node that has the most gives up its longest
 * unused ones, those that messages to come need last. A message that still waits in the log for one of them is set aside
 * with that reason.
 */
import { join } from 'node:path';
import type { BufferLogger } from '../../log/buffer-api.ts';
import { codeOf, type FileOperations, writeFully } from '../../log/files.ts';
import type { SealedCertificate } from './certificate.ts';
import { type CertificateReader, fileNameOf } from './certificate-reader.ts';

export const FILES_MAX = 16_384;
export const BYTES_MAX = 64 * 1024 * 1024;
const AGAIN_MS = 1000;
const FILE = /^([0-9a-f]{16})-([0-9a-f]{32})\.json$/;

export interface CertificateStore {
  /** @returns null when it is durable already, else a promise that resolves when it is */
  put(node: string, certificate: SealedCertificate): Promise<void> | null;
  /** Stops trying; what is not durable by then never resolves. */
  close(): Promise<void>;
}

export async function openCertificateStore(options: {
  folder: string;
  files: FileOperations;
  reader: CertificateReader;
  /** Ids that messages to come may need. */
  inUse: () => ReadonlySet<string>;
  logger: BufferLogger;
  filesMax?: number;
  bytesMax?: number;
}): Promise<CertificateStore> {
  const { folder, files, reader, inUse, logger, filesMax = FILES_MAX, bytesMax = BYTES_MAX } = options;
  /** Bytes by file name, the longest unused first. */
  const kept = new Map<string, number>();
  let bytes = 0;
  let failing = false;
  let closed = false;
  let wake = () => {};
  let last: Promise<void> = Promise.resolve();

  try {
    await files.makeFolder(folder);
    for (const name of await files.list(folder)) {
      if (!FILE.test(name)) continue;
      const size = await files.size(join(folder, name));
      kept.set(name, size);
      bytes += size;
    }
  } catch (error) {
    logger.warn({ err: error, folder }, 'sparkplug: the folder of births cannot be read yet');
  }

  async function write(node: string, { id, text }: SealedCertificate): Promise<void> {
    const name = fileNameOf(node, id);
    const path = join(folder, name);
    const content = Buffer.from(text);
    await makeRoom(content.length);
    await files.makeFolder(folder);
    // One that was cut off by a power failure, or is damaged.
    await files.remove(path).catch(() => undefined);
    const file = await files.create(path);
    try {
      await writeFully(file, content, 0);
      await file.datasync();
    } finally {
      await file.close();
    }
    await files.syncFolder(folder);
    bytes += content.length - (kept.get(name) ?? 0);
    kept.delete(name);
    kept.set(name, content.length);
  }

  async function makeRoom(needed: number): Promise<void> {
    while (kept.size > 0 && (kept.size + 1 > filesMax || bytes + needed > bytesMax)) {
      const name = leastNeeded();
      await files.remove(join(folder, name)).catch(error => {
        if (codeOf(error) !== 'ENOENT') throw error;
      });
      bytes -= kept.get(name)!;
      kept.delete(name);
    }
  }

  /** The node that has the most gives: nobody pushes out what is another's (S). */
  function leastNeeded(): string {
    const perNode = new Map<string, number>();
    for (const [name, size] of kept) {
      const node = name.slice(0, 16);
      perNode.set(node, (perNode.get(node) ?? 0) + size);
    }
    const heaviest = [...perNode].reduce((most, next) => (next[1] > most[1] ? next : most))[0];
    const its = [...kept.keys()].filter(name => name.startsWith(heaviest));
    const needed = inUse();
    return its.find(name => !needed.has(FILE.exec(name)![2]!)) ?? its[0]!;
  }

  async function writeUntilDone(node: string, certificate: SealedCertificate): Promise<void> {
    for (;;) {
      if (closed) return new Promise(() => {});
      try {
        await write(node, certificate);
        if (failing) logger.info({ folder }, 'sparkplug: births can be kept again');
        failing = false;
        return;
      } catch (error) {
        if (codeOf(error) === '') throw error;
        if (!failing) {
          logger.error({ err: error, folder }, 'sparkplug: a birth cannot be kept: its messages wait');
        }
        failing = true;
        await new Promise<void>(resolve => {
          const timer = setTimeout(resolve, AGAIN_MS);
          wake = () => {
            clearTimeout(timer);
            resolve();
          };
        });
      }
    }
  }

  return {
    put(node, certificate) {
      const name = fileNameOf(node, certificate.id);
      const known = kept.get(name);
      if (known !== undefined && isReadable(node, certificate.id)) {
        kept.delete(name);
        kept.set(name, known);
        return null;
      }
      last = last.then(() => writeUntilDone(node, certificate));
      return last;
    },
    async close() {
      closed = true;
      wake();
    },
  };

  function isReadable(node: string, id: string): boolean {
    return reader.birth(node, id) !== null || reader.devices(node, id) !== null;
  }
}
