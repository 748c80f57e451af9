-- Largest spend that is neither for a ticket nor declared overhead, by team and client, and what to do about it.
SELECT
  team_id,
  client,
  count(*) AS calls,
  count(*) - count(list_cost_usd) AS unpriced_calls,
  count(DISTINCT task_id) AS tasks,
  coalesce(sum(list_cost_usd), 0) AS list_cost_usd,
  CASE
    WHEN client = 'claude-code' THEN 'run it with `outlay run`, or set ANTHROPIC_CUSTOM_HEADERS=''x-outlay-ticket: PAY-123'''
    WHEN client = 'codex' THEN 'run it with `outlay run`, or give its model provider http_headers'
    WHEN client = 'gemini-cli' THEN 'run it with `outlay run`, or set GEMINI_CLI_CUSTOM_HEADERS=''x-outlay-ticket: PAY-123'''
    WHEN client = 'opencode' THEN 'run it with `outlay run`, or give its provider headers'
    WHEN client = 'aider' THEN 'run it with `outlay run`, or put /t/PAY-123 before the path of its base URL'
    WHEN client IS NULL THEN 'a service or CI job: a key bound to a ticket or purpose (outlay keys create --ticket, --purpose)'
    ELSE 'send x-outlay-ticket, or put /t/PAY-123 before the path of the base URL; a service: a key with --ticket or --purpose'
  END AS advice
FROM calls
WHERE ticket_id IS NULL AND purpose IS NULL AND result IS DISTINCT FROM 'refused'
  AND ($from IS NULL OR started_at >= CAST($from AS TIMESTAMP))
  AND ($to IS NULL OR started_at < CAST($to AS TIMESTAMP))
  AND ($team IS NULL OR team_id = $team)
GROUP BY ALL
ORDER BY list_cost_usd DESC, calls DESC, team_id, client
LIMIT 20
