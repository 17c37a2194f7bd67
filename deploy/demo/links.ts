/**
 * The links of the demo's sites, for people who want to see what a cut does: each gateway reaches NATS through a relay
 * (`link.ts`), and a small HTTP server on loopback cuts and restores them. The cloud node passes the page's wishes on to
 * it (`cloud/demo-links.ts`), so that the page needs one address only.
 *
 *   GET  /<token>/links            { links: [{ site, cut, changedAt, bufferBytes }] }
 *   POST /<token>/links/<site>     { cut: true | false }, answered the same
 */
import { randomBytes } from 'node:crypto';
import { readdir, stat } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import { type Link, openLink } from '../local/link.ts';
import type { GatewayName } from '../local/stack.ts';

export interface DemoLinks {
  /** http://127.0.0.1:port/token: for the cloud node. */
  readonly controlUrl: string;
  /** Puts a relay in front of the server at `url`. @returns the URL to use instead */
  through(url: string, of: GatewayName): Promise<string>;
  close(): Promise<void>;
}

interface SiteLink {
  readonly links: Link[];
  cut: boolean;
  /** Milliseconds since 1970; null while it has been whole all the time. */
  changedAt: number | null;
}

const BODY_BYTES_MAX = 1000;

/** @param gatewaysDirectory holds `<site>/<gateway>`, the gateways' data */
export async function openDemoLinks(gatewaysDirectory: string): Promise<DemoLinks> {
  const sites = new Map<string, SiteLink>();
  const token = randomBytes(18).toString('base64url');

  const server = createServer((request, response) => {
    answer(request).then(
      body => reply(response, body === null ? 404 : 200, body ?? {}),
      error => reply(response, 400, { detail: (error as Error).message }),
    );
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };

  async function answer(request: IncomingMessage): Promise<object | null> {
    const [, given, what, site, ...rest] = (request.url ?? '').split('/');
    if (given !== token || what !== 'links' || rest.length > 0) return null;
    if (request.method === 'POST') {
      const link = sites.get(decodeURIComponent(site ?? ''));
      if (!link) return null;
      const { cut } = JSON.parse(await bodyOf(request)) as { cut?: unknown };
      if (typeof cut !== 'boolean') throw new Error('cut is true or false');
      change(link, cut);
    } else if (request.method !== 'GET' || site !== undefined) return null;
    return { links: await Promise.all([...sites].map(([name, link]) => describe(name, link))) };
  }

  function change(site: SiteLink, cut: boolean): void {
    if (site.cut === cut) return;
    site.cut = cut;
    site.changedAt = Date.now();
    for (const link of site.links) {
      if (cut) link.cut();
      else link.heal();
    }
  }

  const describe = async (site: string, { cut, changedAt }: SiteLink) => ({
    site,
    cut,
    changedAt,
    bufferBytes: await bytesBelow(join(gatewaysDirectory, site)),
  });

  return {
    controlUrl: `http://127.0.0.1:${port}/${token}`,
    async through(url, { site }) {
      const address = new URL(url);
      const link = await openLink({ host: address.hostname, port: Number(address.port) });
      const of = sites.get(site) ?? { links: [], cut: false, changedAt: null };
      of.links.push(link);
      sites.set(site, of);
      address.port = String(link.port);
      return address.toString();
    },
    async close() {
      server.closeAllConnections();
      await new Promise(resolve => server.close(resolve));
      for (const { links } of sites.values()) for (const link of links) await link.close();
    },
  };
}

function reply(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of request) {
    text += String(chunk);
    if (text.length > BODY_BYTES_MAX) throw new Error('too long');
  }
  return text;
}

/** Of all files; what vanishes meanwhile does not count. */
async function bytesBelow(folder: string): Promise<number> {
  const found = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  const sizes = found
    .filter(entry => entry.isFile())
    .map(entry =>
      stat(join(entry.parentPath, entry.name)).then(
        ({ size }) => size,
        () => 0,
      ),
    );
  return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
}
