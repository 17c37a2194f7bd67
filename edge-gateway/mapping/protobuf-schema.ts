/**
 * Schemas of Protocol Buffers as plain data, from .proto files. protobufjs parses the files when the mapping file is
 * read; what comes of it can be handed to a worker, and payloads are decoded by `protobuf-decode.ts` without generated
 * code.
 */
import { dirname, join } from 'node:path';
import protobuf from 'protobufjs';

export type Scalar =
  | 'double'
  | 'float'
  | 'int32'
  | 'int64'
  | 'uint32'
  | 'uint64'
  | 'sint32'
  | 'sint64'
  | 'fixed32'
  | 'fixed64'
  | 'sfixed32'
  | 'sfixed64'
  | 'bool'
  | 'string'
  | 'bytes';

export interface ProtoField {
  readonly name: string;
  readonly type:
    | { readonly is: 'scalar'; readonly of: Scalar }
    | { readonly is: 'enum' | 'message'; readonly of: string };
  readonly repeated: boolean;
  /** The type of the keys of a map. */
  readonly keys: Scalar | null;
  /** Whether a value that is not sent stands for zero, as with proto3's plain fields, and not for absence. */
  readonly filled: boolean;
}

export interface ProtoSchema {
  /** By full name, then by field number. */
  readonly messages: Readonly<Record<string, Readonly<Record<number, ProtoField>>>>;
  readonly enums: Readonly<Record<string, Readonly<Record<number, string>>>>;
}

export type SchemaOutcome =
  | { readonly ok: true; readonly schema: ProtoSchema }
  /** `file:line: …`, or without a line where there is none. */
  | { readonly ok: false; readonly problem: string };

const FILES_MAX = 256;
/** The name in its messages, which its types do not have. */
const parser: typeof protobuf.parse & { filename?: string } = protobuf.parse;

/**
 * @param file path of the .proto file; imports are looked for beside the importing file, then beside this one
 * @param readText throws a system error
 */
export function loadSchema(file: string, readText: (path: string) => string): SchemaOutcome {
  const root = new protobuf.Root();
  const loaded = new Set<string>();
  try {
    loadFile(file);
    root.resolveAll();
    return { ok: true, schema: plainSchema(root) };
  } catch (error) {
    return { ok: false, problem: problemOf(error as Error) };
  }

  function loadFile(path: string): void {
    if (loaded.has(path)) return;
    if (loaded.size >= FILES_MAX) throw new Error(`${path}: more than ${FILES_MAX} files of schemas`);
    loaded.add(path);
    const text = readText(path);
    parser.filename = path;
    const { imports = [], weakImports = [] } = protobuf.parse(text, root, { keepCase: true });
    for (const name of [...imports, ...weakImports]) {
      const common = protobuf.common.get(name);
      if (common === null) loadFile(found(name, path));
      else if (!loaded.has(name)) {
        loaded.add(name);
        root.addJSON(common.nested ?? {});
      }
    }
  }

  function found(name: string, from: string): string {
    const places = [join(dirname(from), name), join(dirname(file), name)];
    const place = places.find(path => {
      try {
        readText(path);
        return true;
      } catch {
        return false;
      }
    });
    if (place === undefined) throw new Error(`${from}: imports "${name}", which is neither there nor known`);
    return place;
  }
}

/** protobufjs says "illegal token 'x' (file.proto, line 3)". */
function problemOf({ message }: Error): string {
  const [, what, file, line] = /^(.*) \((.*), line (\d+)\)$/s.exec(message) ?? [];
  return what === undefined ? message : `${file}:${line}: ${what}`;
}

function plainSchema(root: protobuf.Root): ProtoSchema {
  const messages: Record<string, Record<number, ProtoField>> = Object.create(null);
  const enums: Record<string, Record<number, string>> = Object.create(null);
  const visit = (namespace: protobuf.NamespaceBase): void => {
    for (const object of namespace.nestedArray) {
      const name = object.fullName.slice(1);
      if (object instanceof protobuf.Type) {
        messages[name] = Object.fromEntries(object.fieldsArray.map(field => [field.id, plainField(field)]));
      }
      if (object instanceof protobuf.Enum) enums[name] = { ...object.valuesById };
      if (object instanceof protobuf.Namespace) visit(object);
    }
  };
  visit(root);
  return { messages, enums };
}

function plainField(field: protobuf.Field): ProtoField {
  const { name, repeated, resolvedType } = field;
  if (field.delimited) throw new Error(`${field.fullName.slice(1)}: groups are not read`);
  const isEnum = resolvedType instanceof protobuf.Enum;
  const type: ProtoField['type'] =
    resolvedType === null
      ? { is: 'scalar', of: field.type as Scalar }
      : { is: isEnum ? 'enum' : 'message', of: resolvedType.fullName.slice(1) };
  const keys = field instanceof protobuf.MapField ? (field.keyType as Scalar) : null;
  const filled = type.is !== 'message' && !repeated && keys === null && !field.hasPresence;
  return { name, type, repeated, keys, filled };
}
