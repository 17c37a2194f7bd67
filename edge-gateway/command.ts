/** `holdfast edge <command>`: what can be done on the box itself. Each command is a file of its own. */
import { tryMappingCommand } from './mapping/try-mapping-command.ts';
import { statusCommand } from './status/status-command.ts';

interface Command {
  readonly does: string;
  /** Sets the exit code. @param args behind the command's name */
  readonly run: (args: readonly string[]) => void | Promise<void>;
}

const commands: Readonly<Record<string, Command>> = {
  status: { does: 'shows how the gateway on this box is doing', run: statusCommand },
  export: { does: 'writes what is unsettled onto a stick, for holdfast import', run: runExport },
  'try-mapping': { does: 'shows what a captured message would become', run: tryMappingCommand },
};

/** Loaded when it is wanted: the other commands start faster without its cryptography. */
async function runExport(args: readonly string[]): Promise<void> {
  const { exportCommand } = await import('./export/command.ts');
  await exportCommand(args);
}

const [name = '', ...args] = process.argv.slice(2);
const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
if (command) await command.run(args);
else {
  const lines = Object.entries(commands).map(([known, { does }]) => `  ${known.padEnd(13)}${does}`);
  const asked = name === '' || name === 'help' || name === '--help';
  process.stderr.write(
    `${asked ? 'holdfast edge <command> [options]' : `There is no command edge ${name}.`}\n`,
  );
  process.stderr.write(`${lines.join('\n')}\n`);
  process.exitCode = asked ? 0 : 2;
}
