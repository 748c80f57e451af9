-- What clients do not tell, so that rules of waste say nothing of their calls.
WITH told AS (
  SELECT
    client,
    count(*) AS calls,
    count(*) FILTER (human_turn IS NULL) AS no_human_turn,
    count(*) FILTER (edits IS NULL) AS no_edits,
    count(*) FILTER (tool_calls IS NULL) AS no_tool_calls,
    count(*) FILTER (tool_schema_tokens IS NULL) AS no_tool_schema,
    count(*) FILTER (coalesce(session_id, task_id) IS NULL) AS no_session,
    count(*) FILTER (request_hash IS NULL) AS no_request_hash,
    count(*) FILTER (prefix_hash IS NULL) AS no_prefix_hash,
    count(*) FILTER (action_hash IS NULL) AS no_action_hash,
    count(*) FILTER (coalesce(tool_count, tool_schema_tokens) IS NULL) AS no_tools
  FROM calls
  WHERE started_at >= $from AND started_at < $to AND ($team IS NULL OR team_id = $team)
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
