/** The mapping that a replay brings: what `loadMappingFile` made of a gateway's mapping file, checked once more. */
import { z } from 'zod';
import { commonMapping, compileMapping } from '../../edge-gateway/mapping/compile.ts';
import { type MappingConfig, readMappingFile } from '../../edge-gateway/mapping/mapping-file.ts';
import type { Mapping } from '../../edge-gateway/mapping/route.ts';

export type MappingOutcome =
  | { readonly ok: true; readonly mapping: Mapping }
  | { readonly ok: false; readonly problems: readonly string[] };

const Given = z.strictObject({
  profiles: z.unknown(),
  mappings: z.unknown(),
  /** With their schemas, which are files at whoever sends them. */
  protobuf: z
    .array(z.looseObject({ message: z.string(), schema: z.looseObject({}) }))
    .max(256)
    .optional(),
});

/** @param given undefined: the shapes that need no mapping file */
export function mappingOf(given: unknown): MappingOutcome {
  if (given === undefined) return { ok: true, mapping: commonMapping };
  const parsed = Given.safeParse(given);
  if (!parsed.success) return { ok: false, problems: ['mapping: not what a mapping file is made into'] };
  const { protobuf, ...file } = parsed.data;
  // JSON is YAML: the file's own rules see it again. It names no file of this machine, as `protobuf` is left out.
  const read = readMappingFile(JSON.stringify(file), 'mapping');
  if (!read.ok) return read;
  try {
    const config = { ...read.config, ...(protobuf && { protobuf }) } as MappingConfig;
    return { ok: true, mapping: compileMapping(config) };
  } catch (error) {
    return { ok: false, problems: [`mapping: ${(error as Error).message}`] };
  }
}
