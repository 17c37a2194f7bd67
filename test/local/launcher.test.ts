/** bin/holdfast.js in a project of its own, with its dependencies recorded as installed. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const launcher = fileURLToPath(new URL('../../bin/holdfast.js', import.meta.url));

function project(t: { after(release: () => void): void }, lock = '{"packages":{}}'): string {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-launcher-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  for (const part of ['bin', 'node_modules', 'deploy/demo'])
    mkdirSync(join(directory, part), { recursive: true });
  copyFileSync(launcher, join(directory, 'bin/holdfast.js'));
  writeFileSync(join(directory, 'package.json'), '{"type":"module","name":"project","version":"1.0.0"}');
  writeFileSync(join(directory, 'package-lock.json'), lock);
  const hash = createHash('sha256').update('{"packages":{}}').digest('hex');
  writeFileSync(join(directory, 'node_modules/.holdfast-lock'), hash);
  return directory;
}

function run(directory: string, args: readonly string[], npm = '') {
  const child = spawn(process.execPath, [join(directory, 'bin/holdfast.js'), ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, npm_execpath: npm },
  });
  const output = { text: '' };
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', chunk => (output.text += String(chunk)));
  return { child, output, ended: once(child, 'close') as Promise<[number | null]> };
}

test('an unknown command lists the known ones', async t => {
  const { output, ended } = run(project(t), ['nonsense']);
  assert.equal((await ended)[0], 1);
  assert.match(output.text, /There is no command nonsense\.\n {2}start .*\n {2}test .*\n {2}bench /);
});

test('arguments and the exit code are passed on', async t => {
  const directory = project(t);
  writeFileSync(
    join(directory, 'deploy/demo/main.ts'),
    'const args: string[] = process.argv.slice(2); console.log(JSON.stringify(args)); process.exitCode = 7;',
  );
  const { output, ended } = run(directory, ['start', '--for', '30s']);
  assert.equal((await ended)[0], 7);
  assert.equal(output.text, '["--for","30s"]\n');
});

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  test(`${signal} that comes twice, as from a terminal and from npm, reaches the command once, which drains`, async t => {
    const directory = project(t);
    writeFileSync(
      join(directory, 'deploy/demo/main.ts'),
      `let heard = 0;
       process.on('${signal}', () => {
         heard += 1;
         if (heard === 1) setTimeout(() => { console.log('drained', heard); process.exit(3); }, 200);
       });
       console.log('ready');
       setInterval(() => undefined, 1000);`,
    );
    const { child, output, ended } = run(directory, ['start']);
    await once(child.stdout, 'data');
    child.kill(signal);
    child.kill(signal);
    assert.equal((await ended)[0], 3);
    assert.equal(output.text, 'ready\ndrained 1\n');
  });
}

test('the command hears of the end of a launcher that was killed', async t => {
  const directory = project(t);
  writeFileSync(
    join(directory, 'deploy/demo/main.ts'),
    `process.on('disconnect', () => { console.log('drained'); process.exit(); });
     console.log('ready');`,
  );
  const { child, output, ended } = run(directory, ['start']);
  await once(child.stdout, 'data');
  child.kill('SIGKILL');
  // The streams close when the command, too, is gone.
  await ended;
  assert.equal(output.text, 'ready\ndrained\n');
});

/** Stands in for npm, which must not be asked for real here: says a line, counts the call, ends as told. */
function fakeNpm(directory: string, code: number): string {
  const file = join(directory, 'npm-cli.js');
  writeFileSync(
    file,
    `import { appendFileSync } from 'node:fs';
     appendFileSync(${JSON.stringify(join(directory, 'npm-calls'))}, process.argv.slice(2).join(' ') + '\\n');
     console.error('npm error of its own');
     process.exitCode = ${code};`,
  );
  return file;
}

const otherLock = '{"lockfileVersion":3,"packages":{"node_modules/x":{"version":"1.0.0"}}}';

test('a failing npm shows what it said and what to do', async t => {
  const directory = project(t, otherLock);
  const { output, ended } = run(directory, ['start'], fakeNpm(directory, 1));
  assert.equal((await ended)[0], 1);
  assert.match(
    output.text,
    /^Installing the locked dependencies \(npm ci\) \.\.\.\nnpm error of its own\nInstalling the dependencies failed/,
  );
});

test('another lock file is installed once, quietly', async t => {
  const directory = project(t, otherLock);
  writeFileSync(join(directory, 'deploy/demo/main.ts'), "console.log('runs');");
  const npm = fakeNpm(directory, 0);
  const first = run(directory, ['start'], npm);
  assert.equal((await first.ended)[0], 0);
  assert.equal(first.output.text, 'Installing the locked dependencies (npm ci) ...\nruns\n');
  const second = run(directory, ['start'], npm);
  assert.equal((await second.ended)[0], 0);
  assert.equal(second.output.text, 'runs\n');
  assert.equal(readFileSync(join(directory, 'npm-calls'), 'utf8'), 'ci --include=dev\n');
});
