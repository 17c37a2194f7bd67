/** A cloud node as a child process. */
import { type NodeProcess, nodeProcess } from './node-process.ts';

/** @param entry a module that runs `cloud/main.ts` and more; else that itself */
export const cloudProcess = (options: {
  name: string;
  env: Readonly<Record<string, string>>;
  entry?: URL;
}): NodeProcess => nodeProcess({ entry: new URL('../../cloud/main.ts', import.meta.url), ...options });
