/** The words of a command line as the values of its options, or what is wrong with them. Pure. */
import { type ParseArgsConfig, parseArgs } from 'node:util';

/** An empty problem: help was asked for. */
export type Read<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly problem: string };

export const problem = (text: string): Read<never> => ({ ok: false, problem: text });

/** @param options all but `--help`, which is one of every command */
export function readOptions(
  words: string[],
  options: NonNullable<ParseArgsConfig['options']>,
): Read<Record<string, string | boolean | undefined>> {
  try {
    const { values } = parseArgs({ args: words, options: { ...options, help: { type: 'boolean' } } });
    return values.help ? problem('') : { ok: true, value: values as Record<string, string | boolean> };
  } catch (error) {
    return problem((error as Error).message);
  }
}
