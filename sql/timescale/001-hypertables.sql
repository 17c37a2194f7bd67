-- History on TimescaleDB: `message` and `chunk` become hypertables with a table per day, with all that is in them. Applied
-- where there are no readings yet, and by `holdfast history to-timescale`. One transaction: it is done, or nothing was.
--
--   days ─▶ TimescaleDB's own edition: taken over as they are   nobody reads or writes history for some seconds
--       └─▶ Apache edition: copied                              chunks first: meanwhile history is read and written, but
--                                                               not compacted; then messages, and nobody does
--
-- What people made upon these tables themselves must go first: dropping the old ones says what it is.

select set_config('search_path', 'holdfast, public, ' || extnamespace::regnamespace::text, true)
  from pg_extension where extname = 'timescaledb';

-- Whoever ended the command has closed the connection: nothing is held for him any longer, where the server can tell.
do $$
begin
  perform set_config('client_connection_check_interval', '5s', true);
exception when invalid_parameter_value then null;
end $$;

-- Who compacts holds it while he reads the one table and is about to write the other: without it we would wait for each other.
select pg_advisory_xact_lock(hashtext('holdfast.compaction'));

create table message_next (like message including all);
create table chunk_next (like chunk including all);
-- Days by UTC: TimescaleDB counts from an epoch at midnight.
select create_hypertable('message_next', 'at', chunk_time_interval => interval '1 day', create_default_indexes => false),
       create_hypertable('chunk_next', 'at', chunk_time_interval => interval '1 day', create_default_indexes => false);

-- Whoever waits for such a lock holds up all who come after him, so he does not wait for long, and tries again.
create function pg_temp.lock_alone() returns void language plpgsql set lock_timeout = '1s' as $$
begin
  for attempt in 1 .. 100 loop
    begin
      lock table holdfast.message, holdfast.chunk in access exclusive mode;
      return;
    exception when lock_not_available then perform pg_sleep(1);
    end;
  end loop;
  raise 'others have been at history for too long: see pg_stat_activity' using errcode = 'lock_not_available';
end $$;

do $$
declare
  takes_over boolean := current_setting('timescaledb.license') = 'timescale'
                        and to_regprocedure('attach_chunk(regclass,regclass,jsonb)') is not null;
  t record;
begin
  if takes_over then
    perform pg_temp.lock_alone();
    for t in select * from day_tables() loop
      execute format('alter table holdfast.%I detach partition %s', t.parent, t.relation);
      execute format('call attach_chunk(%L, %L, %L)', 'holdfast.' || t.parent || '_next', t.relation, jsonb_build_object(
        'at', jsonb_build_array(t.day::text || ' 00:00:00+00', (t.day + 1)::text || ' 00:00:00+00')));
    end loop;
    return;
  end if;
  lock table holdfast.chunk in share mode;
  for t in select * from day_tables() where parent = 'chunk' order by day loop
    execute format('insert into chunk_next select * from %s', t.relation);
  end loop;
  perform pg_temp.lock_alone();
  for t in select * from day_tables() where parent = 'message' order by day loop
    execute format('insert into message_next select * from %s', t.relation);
  end loop;
end $$;

-- The new tables take the names, and what is made upon the names is made again as it is written, upon the new ones: the
-- view, and the functions of a chunk. Who was let in still is.
do $$
declare
  remade text[];
  old regprocedure;
  g record;
begin
  perform set_config('search_path', 'pg_catalog', true);
  remade := array(select pg_get_functiondef(p.oid) from pg_proc p where p.proargtypes[0] = 'holdfast.chunk'::regtype)
            || ('create or replace view holdfast.reading as ' || pg_get_viewdef('holdfast.reading'::regclass));
  for g in select c.relname, a.privilege_type, a.is_grantable, r.rolname
             from pg_class c cross join aclexplode(c.relacl) a left join pg_roles r on r.oid = a.grantee
            where c.oid in ('holdfast.message'::regclass, 'holdfast.chunk'::regclass) and a.grantee <> c.relowner loop
    execute format('grant %s on holdfast.%I to %s%s', g.privilege_type, g.relname || '_next',
      coalesce(quote_ident(g.rolname), 'public'), case when g.is_grantable then ' with grant option' else '' end);
  end loop;
  alter table holdfast.message rename to message_stock;
  alter table holdfast.chunk rename to chunk_stock;
  alter table holdfast.message_next rename to message;
  alter table holdfast.chunk_next rename to chunk;
  for i in 1 .. cardinality(remade) loop execute remade[i]; end loop;
  -- They call one another by name only, so the order does not matter.
  for old in select oid::regprocedure from pg_proc where proargtypes[0] = 'holdfast.chunk_stock'::regtype loop
    execute format('drop function %s', old);
  end loop;
  drop table holdfast.message_stock;
  drop table holdfast.chunk_stock;
  alter index holdfast.message_next_device_at_idx rename to message_device_at;
  alter index holdfast.chunk_next_device_at_idx rename to chunk_device_at;
end $$;
select set_config('search_path', 'holdfast, public, ' || extnamespace::regnamespace::text, true)
  from pg_extension where extname = 'timescaledb';

-- A day has one chunk of each; those taken over keep their names.
create or replace function day_tables() returns table (parent text, day date, relation regclass) language sql stable as $$
  select hypertable_name, (range_start at time zone 'UTC')::date, c.oid::regclass
    from timescaledb_information.chunks
    join pg_namespace n on n.nspname = chunk_schema
    join pg_class c on c.relnamespace = n.oid and c.relname = chunk_name
   where hypertable_schema = 'holdfast' and hypertable_name in ('message', 'chunk')
$$;

-- Who waited for the table while it was moved, and took it for a plain one, writes into the hypertable itself, where nobody
-- looks. He is refused, and tries again (A). TimescaleDB has the trigger on every day, too, where its condition is false.
create function refuse_row_outside_of_days() returns trigger language plpgsql as $$
begin
  raise '% has just become a hypertable', tg_relid::regclass using errcode = 'HF004';
end $$;
do $$
declare
  parent regclass;
begin
  foreach parent in array array['message', 'chunk']::regclass[] loop
    execute format('create trigger row_lies_in_day after insert on %s for each row when (new.tableoid = %s)
                      execute function refuse_row_outside_of_days()', parent, parent::oid);
  end loop;
end $$;

-- A row makes its day by itself, but then keeps others from making one until it is committed: a writer that is paused
-- must not (D). So a row that nobody sees makes the day, ahead of time, in a transaction of its own.
create or replace function ensure_day(day date) returns void language plpgsql set lock_timeout = '5s' as $$
declare
  begins timestamptz := day::text || ' 00:00:00+00';
  parents text[] := array(select t.parent from holdfast.day_tables() t where t.day = ensure_day.day);
begin
  if cardinality(parents) = 2 then return; end if;
  if not 'message' = any (parents) then
    insert into holdfast.message (at, sequence, log, device, shape, element, kind) values (begins, 0, 0, 0, 0, 0, 0);
    -- No log and no device has this number.
    delete from holdfast.message m where m.at = begins and m.log = 0 and m.device = 0;
  end if;
  if not 'chunk' = any (parents) then
    insert into holdfast.chunk (at, until, device, shape, log, kind, messages, numbers, forms, bases, steps, places, body)
    values (begins, begins, 0, 0, 0, 0, 0, 0, '{}', '{}', '{}', '{}', '');
    delete from holdfast.chunk c where c.at = begins and c.log = 0 and c.device = 0;
  end if;
end $$;
