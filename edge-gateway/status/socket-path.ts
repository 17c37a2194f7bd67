/**
 * The address of a gateway's status socket: `status.sock` in its data folder. The system takes socket paths of 107 bytes
 * at most; a longer one is reached by way of a handle on the folder.
 */
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';

export const SOCKET_NAME = 'status.sock';
const PATH_BYTES_MAX = 107;

/**
 * @returns the path to listen at or connect to, good until `release`
 * @throws the system error when the folder is long and cannot be opened
 */
export function statusSocket(dataDirectory: string): { readonly path: string; release(): void } {
  const path = join(dataDirectory, SOCKET_NAME);
  if (Buffer.byteLength(path) <= PATH_BYTES_MAX) return { path, release() {} };
  const folder = openSync(dataDirectory, 'r');
  return { path: `/proc/self/fd/${folder}/${SOCKET_NAME}`, release: () => closeSync(folder) };
}
