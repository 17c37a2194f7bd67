-- The tables that days are kept in, asked by whoever has to do with one of them: one place that knows how they are named
-- and found. On TimescaleDB it has another body (sql/timescale/001-hypertables.sql).

set local search_path = holdfast, public;

create function day_tables() returns table (parent text, day date, relation regclass) language sql stable as $$
  select substring(c.relname from '^[a-z]+'), to_date(right(c.relname, 8), 'YYYYMMDD'), c.oid::regclass
    from pg_inherits p join pg_class c on c.oid = p.inhrelid
   where p.inhparent in ('holdfast.message'::regclass, 'holdfast.chunk'::regclass) and c.relname ~ '_\d{8}$'
$$;
