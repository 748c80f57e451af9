-- What clients do not tell, so that rules of waste say nothing of their calls.
WITH told AS (
  SELECT
    client,
    count(*) AS calls,
    count(*) - count(human_turn) AS no_human_turn,
    count(*) - count(edits) AS no_edits,
    count(*) - count(tool_calls) AS no_tool_calls,
    count(*) - count(tool_schema_tokens) AS no_tool_schema,
    count(*) - count(coalesce(session_id, task_id)) AS no_session,
    count(*) - count(request_hash) AS no_request_hash,
    count(*) - count(prefix_hash) AS no_prefix_hash,
    count(*) - count(action_hash) AS no_action_hash,
    count(*) - count(coalesce(tool_count, tool_schema_tokens)) AS no_tools
  FROM calls
  WHERE ($from IS NULL OR started_at >= CAST($from AS TIMESTAMP))
    AND ($to IS NULL OR started_at < CAST($to AS TIMESTAMP))
    AND ($team IS NULL OR team_id = $team)
    AND result = 'completed' AND usage_source IS DISTINCT FROM 'none'
  GROUP BY client
)
SELECT
  * EXCLUDE (no_tools),
  list_sort(list_distinct(flatten([
    CASE WHEN no_request_hash = told.calls THEN ['W01', 'W02', 'W05'] END,
    CASE WHEN no_prefix_hash = told.calls THEN ['W06', 'W07'] END,
    CASE WHEN no_action_hash = told.calls THEN ['W03'] END,
    CASE WHEN no_edits = told.calls THEN ['W08', 'W12'] END,
    CASE WHEN no_tool_calls = told.calls THEN ['W09', 'W11'] END,
    CASE WHEN no_tool_schema = told.calls THEN ['W09'] END,
    CASE WHEN no_tools = told.calls THEN ['W10'] END,
    CASE WHEN no_human_turn = told.calls THEN ['W12', 'W13'] END,
    CASE WHEN no_session = told.calls THEN ['W03', 'W05', 'W09', 'W12', 'W13'] END
  ]))) AS silent_rules
FROM told
ORDER BY told.calls DESC, client
