/** A real Chromium and its pages, for the browser tests. */
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { type Browser, chromium, type Page } from 'playwright-core';
import { findChromium } from '../../deploy/local/find-chromium.ts';
import { defaultCacheDirectory } from '../../deploy/local/find-servers.ts';

/** `null`, and the test skipped with the reason, where no Chromium is to be had. */
export async function openBrowser(t: TestContext): Promise<Browser | null> {
  const found = await findChromium({
    cacheDirectory: defaultCacheDirectory,
    report: line => t.diagnostic(line),
  });
  if (found.chromium === null) {
    t.skip(`no Chromium to be had: ${found.reason}`);
    return null;
  }
  const { path, args, env } = found.chromium;
  const browser = await chromium.launch({
    executablePath: path,
    args: [...args],
    env: { ...(process.env as Record<string, string>), ...env },
  });
  t.after(() => browser.close());
  return browser;
}

export type Look = { scheme?: 'light' | 'dark'; width?: number; height?: number };

/** A page that collects everything it complains about: exceptions, policy violations, console errors. */
export async function openPage(t: TestContext, browser: Browser, url: string, look: Look = {}) {
  const { scheme = 'light', width = 1280, height = 800 } = look;
  const context = await browser.newContext({ colorScheme: scheme, viewport: { width, height } });
  t.after(() => context.close());
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  const complaints: string[] = [];
  page.on('pageerror', error => complaints.push(error.message));
  page.on('console', message => {
    if (message.type() === 'error' || message.type() === 'warning') complaints.push(message.text());
  });
  await page.goto(url);
  return { page, complaints };
}

/** Waits until the text is there; the message of a timeout names it. */
export const shows = (page: Page, selector: string, text: string) =>
  page.locator(selector).filter({ hasText: text }).first().waitFor();

/** The number of readings below the chart, once it is the one expected. */
export async function readingsOnChart(page: Page, expected: number): Promise<void> {
  await page
    .locator('.summary div')
    .filter({ hasText: 'readings' })
    .locator('dd', { hasText: new RegExp(`^${expected}$`) })
    .waitFor();
}

/** By how much the page is wider than its window. */
export const overflowPx = (page: Page): Promise<number> =>
  page.locator('html').evaluate(html => html.scrollWidth - html.clientWidth);

/** For a person to look at, where `HOLDFAST_TEST_PICTURES` names a folder. */
export async function takePicture(page: Page, name: string): Promise<void> {
  const folder = process.env.HOLDFAST_TEST_PICTURES;
  if (folder) await page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });
}
