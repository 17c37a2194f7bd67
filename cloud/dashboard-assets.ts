/**
 * The dashboard's files, read once at start and held in memory: the browser gets the TypeScript of `dashboard/` with
 * its types blanked out (no build step, and line numbers stay those of the source), and the few vendor modules that
 * the import map of `index.html` names.
 */
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { createRequire, stripTypeScriptTypes } from 'node:module';
import { dirname, extname, join } from 'node:path';

export type DashboardAsset = {
  /** The Content-Type header. */
  readonly type: string;
  readonly body: Buffer;
  /** Strong, quotes included. */
  readonly etag: string;
};

const sourceDirectory = join(import.meta.dirname, 'dashboard');
const require = createRequire(import.meta.url);

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
};

/** URL path below `/vendor/` → package and the file in it. */
const VENDOR: ReadonlyArray<readonly [name: string, packageName: string, file: string]> = [
  ['preact.js', 'preact', 'dist/preact.mjs'],
  ['preact-hooks.js', 'preact', 'hooks/dist/hooks.mjs'],
  ['htm.js', 'htm', 'dist/htm.mjs'],
  ['htm-preact.js', 'htm', 'preact/index.mjs'],
  ['uplot.js', 'uplot', 'dist/uPlot.esm.js'],
  ['uplot.css', 'uplot', 'dist/uPlot.min.css'],
];

/**
 * @returns URL path → asset; `/` is the page
 * @throws when a file cannot be read or a source is not valid TypeScript: the installation is broken
 */
export async function loadDashboard(): Promise<Map<string, DashboardAsset>> {
  const assets = new Map<string, DashboardAsset>();
  for (const name of (await readdir(sourceDirectory)).sort()) {
    const extension = extname(name);
    const path = join(sourceDirectory, name);
    if (extension === '.ts') {
      const script = browserScript(await readFile(path, 'utf8'));
      assets.set(`/dashboard/${name.replace(/\.ts$/, '.js')}`, asset('.js', Buffer.from(script)));
    } else if (name === 'index.html') assets.set('/', asset('.html', await readFile(path)));
    else if (extension in TYPES) assets.set(`/dashboard/${name}`, asset(extension, await readFile(path)));
  }
  for (const [name, packageName, file] of VENDOR) {
    const body = await readFile(join(packageDirectory(packageName), file), 'utf8');
    // Source maps are not served; a developer tool asking for them would only get errors.
    const text = body.replace(/^\/\/# sourceMappingURL=.*$/m, '');
    assets.set(`/vendor/${name}`, asset(extname(name), Buffer.from(text)));
  }
  return assets;
}

/**
 * The Content-Security-Policy for the page: own scripts only, plus the one inline import map by its hash; no inline
 * handlers, no eval, no frames. `'self'` covers the WebSocket of the same host and port too (CSP level 3).
 * @param page the asset at `/`
 * @throws when the page has no import map
 */
export function contentSecurityPolicy(page: DashboardAsset): string {
  const map = /<script type="importmap">([\s\S]*?)<\/script>/.exec(page.body.toString('utf8'))?.[1];
  if (map === undefined) throw new Error('dashboard/index.html has no import map');
  const hash = createHash('sha256').update(map).digest('base64');
  return [
    "default-src 'none'",
    `script-src 'self' 'sha256-${hash}'`,
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
  ].join('; ');
}

/** The main file of each of them lies in `dist/`. */
const packageDirectory = (packageName: string): string => dirname(dirname(require.resolve(packageName)));

function asset(extension: string, body: Buffer): DashboardAsset {
  const etag = `"${createHash('sha256').update(body).digest('base64url').slice(0, 22)}"`;
  return { type: TYPES[extension] as string, body, etag };
}

/** Types become blanks; `./model.ts` becomes `./model.js`, as it is served. */
function browserScript(source: string): string {
  return withoutExperimentalWarning(() => stripTypeScriptTypes(source)).replace(
    /(\bfrom\s*|\bimport\s*\(?\s*)(['"])(\.{1,2}\/[^'"\n]+)\.ts\2/g,
    '$1$2$3.js$2',
  );
}

/** Node announces on every start that stripping is experimental; whoever runs this can do nothing about it. */
function withoutExperimentalWarning<T>(work: () => T): T {
  const { emitWarning } = process;
  process.emitWarning = () => {};
  try {
    return work();
  } finally {
    process.emitWarning = emitWarning;
  }
}
