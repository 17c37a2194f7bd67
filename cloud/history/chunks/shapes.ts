/** Which metrics the numbers of a shape are, by their numbers in `metric`: made there when they are new. Shapes never change. */
import type { ClientBase } from 'pg';

export interface Shapes {
  /** In the order of their places. */
  numbersOf(shape: number): Promise<readonly number[]>;
}

const SHAPES_MAX = 10_000;

/** @param client outside of any transaction: a metric stays, whatever becomes of who asked */
export function openShapes(client: Pick<ClientBase, 'query'>): Shapes {
  const known = new Map<number, readonly number[]>();
  return {
    async numbersOf(shape) {
      const found = known.get(shape);
      if (found) return found;
      await client.query(
        `insert into holdfast.metric (name) select name from holdfast.shape_metric where shape = $1 and type <> 's'
          on conflict do nothing`,
        [shape],
      );
      const { rows } = await client.query<{ id: number }>(
        `select m.id from holdfast.shape_metric s join holdfast.metric m using (name)
          where s.shape = $1 and s.type <> 's' order by s.position`,
        [shape],
      );
      if (known.size >= SHAPES_MAX) known.clear();
      const ids = rows.map(({ id }) => id);
      known.set(shape, ids);
      return ids;
    },
  };
}
