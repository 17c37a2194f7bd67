/** `holdfast edge <command>`: what can be done on the box itself. Each command is a file of its own. */
import { tryMappingCommand } from './mapping/try-mapping-command.ts';

interface Command {
  readonly does: string;
  /** Sets the exit code. @param args behind the command's name */
  readonly run: (args: readonly string[]) => void | Promise<void>;
}

const commands: Readonly<Record<string, Command>> = {
  'try-mapping': { does: 'shows what a captured message would become', run: tryMappingCommand },
};

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
