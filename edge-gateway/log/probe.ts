/** Tells a damaged file from a device that is gone. */
import { join } from 'node:path';
import { codeOf, type FileOperations } from './files.ts';
import { LOCK_NAME } from './lock.ts';

/** Whether the device of the folder still takes data: else nothing on it may be called damaged. */
export async function probe(files: FileOperations, directory: string): Promise<boolean> {
  const path = join(directory, `probe-${process.pid}`);
  try {
    // A folder that was unmounted is empty, and would take the probe.
    await files.size(join(directory, LOCK_NAME));
    await files.remove(path).catch(() => undefined);
    const file = await files.create(path);
    try {
      await file.write(Buffer.from('answer'), 0, 6, 0);
      await file.datasync();
    } finally {
      await file.close();
      await files.remove(path);
    }
    return true;
  } catch (error) {
    return codeOf(error) === 'ENOSPC';
  }
}
