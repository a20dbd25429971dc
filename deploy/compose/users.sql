-- The users of docker-compose.yml: one for each program, with a role of deploy/postgres/roles.sql. Run after that file by the owner; it can be
-- repeated. The passwords come from files, so that they are in no list of processes.
\set worker_password `cat /run/quorumbox/worker-password`
\set story_password `cat /run/quorumbox/story-password`

select format('create role %I login', name) from (values ('worker'), ('story')) as users (name)
where not exists (select from pg_roles where rolname = name)
\gexec

alter role worker password :'worker_password';
alter role story password :'story_password';
grant quorumbox_worker to worker;
grant quorumbox_writer, quorumbox_viewer to story; -- it writes, and shows what becomes of it
