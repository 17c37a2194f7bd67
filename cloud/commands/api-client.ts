/** What the commands of `holdfast` share: the API at HOLDFAST_URL, and how they end. */

export interface ApiClient {
  /** Rejects with {@link CommandFailed}. `query` leaves out what is undefined. */
  get<T>(path: string, query?: Readonly<Record<string, string | number | undefined>>): Promise<T>;
  change<T>(method: 'POST' | 'PUT' | 'PATCH' | 'DELETE', path: string, body?: unknown): Promise<T>;
}

/** What went wrong, for whoever typed the command. Exit code 2: it was asked in a wrong way; 1: it was not done. */
export class CommandFailed extends Error {
  readonly exitCode: 1 | 2;
  constructor(message: string, exitCode: 1 | 2 = 1) {
    super(message);
    this.exitCode = exitCode;
  }
}

export const SERVER_HELP = `  --json             prints JSON
  The cloud node: HOLDFAST_URL (http://127.0.0.1:8080), and HOLDFAST_ADMIN_TOKEN where it asks for one`;

const ANSWER_MS = 120_000;

export function apiClient(environment: Readonly<Record<string, string | undefined>>): ApiClient {
  const base = environment.HOLDFAST_URL || 'http://127.0.0.1:8080';
  const token = environment.HOLDFAST_ADMIN_TOKEN;
  if (!URL.canParse(base) || !/^https?:$/.test(new URL(base).protocol)) {
    throw new CommandFailed('HOLDFAST_URL: expected http://host:port or https://host', 2);
  }
  async function ask<T>(method: string, path: string, body?: unknown): Promise<T> {
    let response: Response;
    try {
      response = await fetch(new URL(path, base), {
        method,
        headers: {
          ...(body !== undefined && { 'content-type': 'application/json' }),
          ...(token && { authorization: `Bearer ${token}` }),
        },
        ...(body !== undefined && { body: JSON.stringify(body) }),
        signal: AbortSignal.timeout(ANSWER_MS),
      });
    } catch (error) {
      const { message, cause } = error as Error;
      const why = cause instanceof Error ? cause.message || (cause as { code?: string }).code : message;
      throw new CommandFailed(`${base} does not answer (${why}): is it the right HOLDFAST_URL?`);
    }
    const text = await response.text();
    if (response.ok) return (text === '' ? undefined : JSON.parse(text)) as T;
    if (response.status === 401) throw new CommandFailed(`${base} asks for its HOLDFAST_ADMIN_TOKEN`);
    throw new CommandFailed(problemIn(text) ?? `${base} answered ${response.status}`);
  }
  return {
    get(path, query = {}) {
      const given = Object.entries(query).filter(([, value]) => value !== undefined);
      const search = new URLSearchParams(
        given.map(([name, value]): [string, string] => [name, String(value)]),
      ).toString();
      return ask('GET', search === '' ? path : `${path}?${search}`);
    },
    change: (method, path, body) => ask(method, path, body),
  };
}

function problemIn(text: string): string | null {
  try {
    const { detail } = JSON.parse(text) as { detail?: unknown };
    return typeof detail === 'string' ? detail : null;
  } catch {
    return null;
  }
}

/** Runs a command to its end: what fails is told on stderr, with `usage` when it was asked in a wrong way. */
export async function runCommand(
  usage: string,
  work: (args: readonly string[], api: ApiClient) => Promise<void>,
): Promise<void> {
  const args = process.argv.slice(2);
  if (args.length === 0 || args.includes('--help') || args[0] === 'help') {
    process[args.length === 0 ? 'stderr' : 'stdout'].write(`${usage}\n`);
    process.exitCode = args.length === 0 ? 2 : 0;
    return;
  }
  try {
    await work(args, apiClient(process.env));
  } catch (error) {
    const isOption = (error as { code?: string }).code?.startsWith('ERR_PARSE_ARGS') ?? false;
    if (!(error instanceof CommandFailed) && !isOption) throw error;
    const exitCode = error instanceof CommandFailed ? error.exitCode : 2;
    process.stderr.write(`${(error as Error).message}\n${exitCode === 2 ? `\n${usage}\n` : ''}`);
    process.exitCode = exitCode;
  }
}

/** `value` as JSON, or else lines for people. */
export function print(json: boolean, value: unknown, lines: () => readonly string[]): void {
  process.stdout.write(
    json
      ? `${JSON.stringify(value)}\n`
      : lines()
          .map(line => `${line}\n`)
          .join(''),
  );
}

/** Lines of columns that stand below one another. */
export function table(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, cell.length);
    });
  }
  return rows.map(row =>
    row
      .map((cell, column) => cell.padEnd(widths[column]!))
      .join('  ')
      .trimEnd(),
  );
}

/** `site/device` as typed. */
export function fullName(text: string | undefined, what: string): { site: string; device: string } {
  const [site = '', device = '', ...rest] = (text ?? '').split('/');
  if (site === '' || device === '' || rest.length > 0) {
    throw new CommandFailed(`${what}: expected site/device${text ? `, not "${text}"` : ''}`, 2);
  }
  return { site, device };
}

/** A second name of the same site: `device`, or `site/device`. */
export function nameAtSite(text: string | undefined, site: string, what: string): string {
  if (text === undefined || text === '') throw new CommandFailed(`${what}: missing`, 2);
  if (!text.includes('/')) return text;
  const named = fullName(text, what);
  if (named.site !== site) throw new CommandFailed(`${what}: ${text} is at another site than ${site}`, 2);
  return named.device;
}
