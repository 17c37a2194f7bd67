/** Asks the gateway that runs on a data folder, over its status socket. */
import { request } from 'node:http';
import { statusSocket } from './socket-path.ts';

export type Answer =
  | { readonly outcome: 'answer'; readonly status: number; readonly body: string }
  /** Nobody listens. */
  | { readonly outcome: 'none' }
  | { readonly outcome: 'mute'; readonly reason: string }
  | { readonly outcome: 'forbidden'; readonly reason: string };

export interface Question {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly body?: string;
  /** Of silence, after which it counts as mute. */
  readonly answerMs: number;
}

/** Nobody listens when there is no socket, or one that a killed gateway left. */
export async function askGateway(dataDirectory: string, question: Question): Promise<Answer> {
  let socket: ReturnType<typeof statusSocket>;
  try {
    socket = statusSocket(dataDirectory);
  } catch (error) {
    return outcomeOf(error as NodeJS.ErrnoException);
  }
  try {
    return await ask(socket.path, question);
  } catch (error) {
    return outcomeOf(error as NodeJS.ErrnoException);
  } finally {
    socket.release();
  }
}

function outcomeOf(error: NodeJS.ErrnoException): Answer {
  if (error.code === 'ENOENT' || error.code === 'ECONNREFUSED') return { outcome: 'none' };
  const outcome = error.code === 'EACCES' || error.code === 'EPERM' ? 'forbidden' : 'mute';
  return { outcome, reason: `the gateway's status socket does not answer: ${error.message}` };
}

function ask(socketPath: string, { method, path, body, answerMs }: Question): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asking = request({ socketPath, method, path, timeout: answerMs }, response => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (piece: string) => {
        text += piece;
      });
      response.on('end', () => resolve({ outcome: 'answer', status: response.statusCode ?? 0, body: text }));
      response.on('error', reject);
    });
    asking.on('timeout', () => asking.destroy(new Error(`no answer within ${answerMs / 1000} s`)));
    asking.on('error', reject);
    asking.end(body);
  });
}
