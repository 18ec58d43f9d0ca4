-- Two roles for the catalog in PostgreSQL, so that a proxy's machine cannot change what an administrator decides.
--
--   holdfast_run    the service: reads everything; counts encryptions, records use, heartbeats and which
--                   generations it has found, can stop a key and block a keystore. It cannot unblock, enable, register,
--                   issue, retire or release anything.
--   holdfast_admin  the holdfast commands: everything. It owns the tables, so it also upgrades them.
--
-- Run as a superuser, connected to the catalog's database, after `holdfast init` made the tables and again after each
-- upgrade: psql --dbname holdfast --file postgresql-roles.sql
-- How the two log in (pg_hba.conf: certificates, scram-sha-256, peer) is yours to decide. The service's configuration
-- names postgresql://holdfast_run@HOST/DATABASE, the administrators' postgresql://holdfast_admin@HOST/DATABASE.

DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'holdfast_run') THEN
    CREATE ROLE holdfast_run LOGIN;
  END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'holdfast_admin') THEN
    CREATE ROLE holdfast_admin LOGIN;
  END IF;
END
$$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO holdfast_admin;
GRANT USAGE ON SCHEMA public TO holdfast_run;

DO $$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY[
    'catalog', 'keystores', 'credentials', 'external_keys', 'key_tags', 'drills', 'drill_results',
    'attestations', 'key_generations', 'proxies', 'changes', 'operators', 'rules', 'requests', 'approvals',
    'generation_reports', 'worker_reports', 'usage_tracking', 'key_usage', 'key_usage_days',
    'key_usage_callers', 'recorded_entries', 'alembic_version'
  ] LOOP
    EXECUTE format('ALTER TABLE %I OWNER TO holdfast_admin', name);
    EXECUTE format('REVOKE ALL ON %I FROM holdfast_run, PUBLIC', name);
    EXECUTE format('GRANT SELECT ON %I TO holdfast_run', name);
  END LOOP;
END
$$;

GRANT UPDATE (version) ON catalog TO holdfast_run;
GRANT UPDATE (last_used_at) ON credentials TO holdfast_run;
GRANT UPDATE (blocked, blocked_until, changed) ON keystores TO holdfast_run;
GRANT UPDATE (encryptions_reserved, canary, stopped_at, stopped_reason, token_serial, changed) ON key_generations
  TO holdfast_run;
GRANT INSERT, UPDATE, DELETE ON proxies, generation_reports, worker_reports TO holdfast_run;
GRANT INSERT, UPDATE ON key_usage TO holdfast_run;
GRANT INSERT, UPDATE, DELETE ON key_usage_days, key_usage_callers TO holdfast_run;
GRANT UPDATE (lost, lost_at) ON usage_tracking TO holdfast_run;
REVOKE ALL ON SEQUENCE key_usage_id_seq FROM PUBLIC;
GRANT USAGE ON SEQUENCE key_usage_id_seq TO holdfast_run;
-- What the service finds out about a key is a change, and has a record like any other; it also passes records on to
-- the audit log.
GRANT INSERT, UPDATE (logged) ON changes TO holdfast_run;
GRANT INSERT, DELETE ON recorded_entries TO holdfast_run;
REVOKE ALL ON SEQUENCE changes_number_seq FROM PUBLIC;
GRANT USAGE ON SEQUENCE changes_number_seq TO holdfast_run;

-- Stopping a key makes a new version. A service that could set any version could end all further changes with 2^63.
CREATE OR REPLACE FUNCTION holdfast_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.version IS DISTINCT FROM OLD.version + 1 AND NOT pg_has_role(current_user, 'holdfast_admin', 'MEMBER') THEN
    RAISE insufficient_privilege USING MESSAGE = 'only holdfast_admin sets the version; others count it up by one';
  END IF;
  RETURN NEW;
END
$$;
ALTER FUNCTION holdfast_count() OWNER TO holdfast_admin;
DROP TRIGGER IF EXISTS holdfast_count ON catalog;
CREATE TRIGGER holdfast_count BEFORE UPDATE ON catalog FOR EACH ROW EXECUTE FUNCTION holdfast_count();

-- What was stopped on a node by `holdfast emergency stop` is blocked for all. To unblock is for an administrator.
CREATE OR REPLACE FUNCTION holdfast_block() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF pg_has_role(current_user, 'holdfast_admin', 'MEMBER') THEN
    RETURN NEW;
  END IF;
  IF NEW.blocked IS NOT TRUE OR NEW.blocked_until IS NOT NULL THEN
    RAISE insufficient_privilege USING MESSAGE = 'only holdfast_admin unblocks a keystore, or blocks it for a time';
  END IF;
  IF NEW.changed < OLD.changed THEN
    RAISE insufficient_privilege USING MESSAGE = 'only holdfast_admin sets back the version of a change';
  END IF;
  RETURN NEW;
END
$$;
ALTER FUNCTION holdfast_block() OWNER TO holdfast_admin;
DROP TRIGGER IF EXISTS holdfast_block ON keystores;
CREATE TRIGGER holdfast_block BEFORE UPDATE ON keystores FOR EACH ROW EXECUTE FUNCTION holdfast_block();

-- The service records a first canary and a stop. Replacing the one and ending the other is for an administrator.
CREATE OR REPLACE FUNCTION holdfast_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF pg_has_role(current_user, 'holdfast_admin', 'MEMBER') THEN
    RETURN NEW;
  END IF;
  IF OLD.stopped_at IS NOT NULL
    AND (NEW.stopped_at, NEW.stopped_reason) IS DISTINCT FROM (OLD.stopped_at, OLD.stopped_reason) THEN
    RAISE insufficient_privilege USING MESSAGE = 'only holdfast_admin releases a stopped key';
  END IF;
  IF OLD.canary IS NOT NULL AND NEW.canary IS DISTINCT FROM OLD.canary THEN
    RAISE insufficient_privilege USING MESSAGE = 'only holdfast_admin replaces a canary';
  END IF;
  IF NEW.changed < OLD.changed THEN
    RAISE insufficient_privilege USING MESSAGE = 'only holdfast_admin sets back the version of a change';
  END IF;
  RETURN NEW;
END
$$;
ALTER FUNCTION holdfast_keep() OWNER TO holdfast_admin;
DROP TRIGGER IF EXISTS holdfast_keep ON key_generations;
CREATE TRIGGER holdfast_keep BEFORE UPDATE ON key_generations FOR EACH ROW EXECUTE FUNCTION holdfast_keep();

-- The service writes records in its own name only: nobody else's change can be invented from a proxy's machine.
CREATE OR REPLACE FUNCTION holdfast_record() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF pg_has_role(current_user, 'holdfast_admin', 'MEMBER') THEN
    RETURN NEW;
  END IF;
  IF (NEW.record::jsonb -> 'actor' ->> 'known_by') IS DISTINCT FROM 'node' OR NEW.outcome <> 'applied' THEN
    RAISE insufficient_privilege USING MESSAGE = 'only holdfast_admin records changes of persons';
  END IF;
  RETURN NEW;
END
$$;
ALTER FUNCTION holdfast_record() OWNER TO holdfast_admin;
DROP TRIGGER IF EXISTS holdfast_record ON changes;
CREATE TRIGGER holdfast_record BEFORE INSERT ON changes FOR EACH ROW EXECUTE FUNCTION holdfast_record();
