/** WebSockets between pages and the push part of a node: the few calls of uWebSockets.js that it makes. */
import type { Network } from './network.ts';
import type { Process, World } from './world.ts';

interface Behavior {
  upgrade(response: object, request: object, context: object): void;
  open(socket: object): void;
  message(socket: object, data: Uint8Array): void;
  close(socket: object): void;
}

export interface SocketServer {
  /** What production takes for its uWebSockets.js application. */
  readonly app: object;
  /** @returns null while nobody listens there */
  connect(
    page: Process,
    host: string,
    on: { text: (text: string) => void; closed: () => void },
  ): PageSocket | null;
}

export interface PageSocket {
  send(message: object): void;
  close(): void;
}

export function openSocketServer(
  world: World,
  network: Network,
  process: Process,
  name: string,
): SocketServer {
  let behavior: Behavior | null = null;
  const sockets = new Set<{ topics: Set<string>; send(text: string): void }>();
  return {
    app: {
      ws(_path: string, of: Behavior) {
        behavior = of;
      },
      publish(topic: string, text: string): boolean {
        let sent = false;
        for (const socket of sockets) {
          if (!socket.topics.has(topic)) continue;
          socket.send(text);
          sent = true;
        }
        return sent;
      },
    },
    connect(page, host, on) {
      const server = behavior;
      if (!server || process.phase !== 'up') return null;
      let data: object = {};
      let open = true;
      server.upgrade(
        {
          upgrade: (of: object) => {
            data = of;
          },
        },
        { getHeader: () => '' },
        {},
      );
      const socket = {
        topics: new Set<string>(),
        getUserData: () => data,
        getBufferedAmount: () => 0,
        send(text: string) {
          world.after(network.travelMs(name, host), page, 'push', () => {
            if (open) on.text(text);
          });
        },
        subscribe: (topic: string) => void socket.topics.add(topic),
        unsubscribe: (topic: string) => void socket.topics.delete(topic),
        end() {
          close();
          world.after(network.travelMs(name, host), page, 'push closed', on.closed);
        },
      };
      const close = () => {
        if (!open) return;
        open = false;
        sockets.delete(socket);
        server.close(socket);
      };
      const toNode = (label: string, work: () => void) =>
        world.after(network.travelMs(host, name), process, label, work);
      toNode('push open', () => {
        sockets.add(socket);
        server.open(socket);
      });
      return {
        send: message =>
          void toNode('push message', () => {
            if (open) server.message(socket, Buffer.from(JSON.stringify(message)));
          }),
        close: () => void toNode('push close', close),
      };
    },
  };
}
