/** The demo's button in a real Chromium: `npm start`, a site's link is cut and restored from the page. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { openBrowser, openPage } from './browser.ts';

const main = fileURLToPath(new URL('../../deploy/demo/main.ts', import.meta.url));

/** @returns the dashboard's address */
async function startDemo(t: TestContext): Promise<string> {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-demo-links-'));
  // As root PostgreSQL runs as another user, who has to get in.
  chmodSync(directory, 0o711);
  const child = spawn(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', main, '--port', '0', '--devices', '20'],
    { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, HOLDFAST_DEMO_DIR: directory } },
  );
  t.after(async () => {
    const ended = once(child, 'exit');
    child.kill('SIGINT');
    await ended;
    rmSync(directory, { recursive: true, force: true, maxRetries: 5 });
  });
  let text = '';
  const found = Promise.withResolvers<string>();
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', chunk => {
      text += String(chunk);
      const url = /Dashboard\s+(http:\/\/\S+?)\/\n/.exec(text)?.[1];
      if (url) found.resolve(url);
    });
  }
  child.on('exit', () => found.reject(new Error(`the demo ended:\n${text}`)));
  return found.promise;
}

test('a site is cut off from the page, its devices grow old, and it comes back', {
  timeout: 120_000,
}, async t => {
  const browser = await openBrowser(t);
  if (browser === null) return;
  const url = await startDemo(t);
  const { page, complaints } = await openPage(t, browser, `${url}/`);
  const of = (site: string) => page.locator(`.demo-link[data-site=${site}]`);
  const says = (site: string, text: RegExp) => of(site).locator('[role=status]', { hasText: text }).waitFor();

  await page.locator('[data-twin="plant/oven-1"] [data-fresh=fresh]').waitFor();
  await says('plant', /The link is well/);
  await of('plant').getByRole('button', { name: 'Cut the link' }).click();
  await of('plant').getByRole('button', { name: 'Restore the link' }).waitFor();
  await says('plant', /^Cut since [1-9]\d* s; its gateway has put \d+ KiB on its disk meanwhile\.$/);
  await page.locator('[data-twin="plant/oven-1"] [data-fresh=recent]').waitFor();
  await page.locator('[data-twin="demo/oven-1"] [data-fresh=fresh]').waitFor();
  await says('demo', /The link is well/);

  await of('plant').getByRole('button', { name: 'Restore the link' }).click();
  await says(
    'plant',
    /^Restored: the first new value was here after \d+\.\d s, and the backlog is in history\.$/,
  );
  await page.locator('[data-twin="plant/oven-1"] [data-fresh=fresh]').waitFor();
  t.diagnostic((await of('plant').textContent()) ?? '');
  assert.deepEqual(complaints, []);
});
