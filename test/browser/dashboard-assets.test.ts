/** What the server hands to the browser: scripts without types, a whole import graph, a policy that fits. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { posix } from 'node:path';
import { test } from 'node:test';
import { contentSecurityPolicy, loadDashboard } from '../../cloud/dashboard-assets.ts';

const warnings: Error[] = [];
process.on('warning', warning => void warnings.push(warning));
const assets = await loadDashboard();
const page = assets.get('/');
assert.ok(page);
const html = page.body.toString();
const importMap = /<script type="importmap">([\s\S]*?)<\/script>/.exec(html)?.[1] ?? '';
const imports = (JSON.parse(importMap) as { imports: Record<string, string> }).imports;

test('every import of every script leads to a file that is served', () => {
  let followed = 0;
  for (const [path, { body, type }] of assets) {
    if (!type.startsWith('text/javascript')) continue;
    for (const [, specifier = ''] of body
      .toString()
      .matchAll(/^(?:import|export)\b[^'"\n;]*?from\s*['"]([^'"]+)['"]/gm)) {
      const target = specifier.startsWith('.')
        ? posix.join(posix.dirname(path), specifier)
        : imports[specifier];
      assert.ok(target !== undefined && assets.has(target), `${path} imports ${specifier}`);
      followed += 1;
    }
  }
  assert.ok(followed > 40, `${followed} imports`);
  for (const [, target = ''] of html.matchAll(/(?:href|src)="([^"]+)"/g))
    assert.ok(assets.has(target), target);
});

test('scripts have no types left, and only the folder of the dashboard is served', () => {
  const script = assets.get('/dashboard/fleet-state.js')?.body.toString() ?? '';
  assert.match(script, /export function applyFrame\(fleet\s+, frame\s+\)/);
  assert.doesNotMatch(script, /from '\.\/[a-z-]+\.ts'/);
  for (const path of assets.keys())
    assert.match(path, /^\/(?:$|dashboard\/[a-z-]+\.(?:js|css|svg)$|vendor\/[a-z-]+\.(?:js|css)$)/);
});

test('the policy allows the import map by its hash and nothing inline besides', () => {
  const policy = contentSecurityPolicy(page);
  const hash = createHash('sha256').update(importMap).digest('base64');
  assert.ok(policy.includes(`script-src 'self' 'sha256-${hash}'`));
  assert.doesNotMatch(policy, /unsafe/);
  assert.doesNotMatch(html, /\son[a-z]+=|<style|style=/);
  assert.equal((html.match(/<script/g) ?? []).length, 2);
});

test('etags follow the content', async () => {
  const again = await loadDashboard();
  for (const [path, { etag }] of assets) assert.equal(again.get(path)?.etag, etag, path);
  assert.equal(new Set([...assets.values()].map(({ etag }) => etag)).size, assets.size);
});

test('loading says nothing about experiments', async () => {
  // Node warns once per process, at the first load above, and tells its listeners a little later.
  await new Promise(resolve => setImmediate(resolve));
  assert.deepEqual(
    warnings.filter(({ message }) => message.includes('stripTypeScriptTypes')),
    [],
  );
});
