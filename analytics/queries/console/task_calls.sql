-- Calls of a task, in their order. One row per call.
SELECT
  started_at, call_id, agent, coalesce(response_model, request_model) AS model, tickets, ticket_source, result, finish_reason,
  input_tokens, cache_read_input_tokens, output_tokens, tool_calls, edits, list_cost_usd, duration_ms
FROM calls
WHERE task_id = $task
ORDER BY started_at, call_id
