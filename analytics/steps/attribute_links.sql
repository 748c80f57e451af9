-- What calls that were looked at have in common: a task or a session, of one key and client. One row per call and kind.
CREATE OR REPLACE TEMP VIEW links AS
SELECT * EXCLUDE (task_id, session_id), 'task' AS kind, task_id AS id FROM looked WHERE task_id IS NOT NULL
UNION ALL
SELECT * EXCLUDE (task_id, session_id), 'session' AS kind, session_id AS id FROM looked WHERE session_id IS NOT NULL
