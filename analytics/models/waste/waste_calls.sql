-- Calls up to the moment of judgement, as the rules of waste see them, without refused ones. One row per call.
-- @ended_at: End of the answer, UTC
-- @answered_at: First byte of the answer, UTC; NULL where it is not known
-- @on_day: UTC day on which it started
-- @is_work: Whether it is not a side call or a compaction, as far as the client tells
-- @session: Team, and session, else task, that it belongs to
-- @tickets: Tickets that it is for, all of them
-- @branch: Branch; NULL where none is told
-- @model: Model that answered, else the one asked for
-- @failed: Whether it failed, or broke off
-- @finish: Why the model stopped, in the provider's word, in small letters
-- @is_ok: Whether it was completed
-- @is_counted: Whether there is a usage: attempts without one are evidence alone
-- @fresh_tokens: Input tokens that were neither read from a cache nor written to one
-- @cache_read_tokens: Input tokens that were read from a cache
-- @cache_write_tokens: Input tokens that were written to a cache
-- @cost_nano: What is paid for it: contracted cost, else list cost, nano-USD; NULL without a price
-- @list_nano: Cost at list price, nano-USD
SELECT
  call_id, coalesce(request_id, call_id) AS request_id, coalesce(attempt, 1) AS attempt, started_at,
  started_at + to_milliseconds(coalesce(duration_ms, 0)) AS ended_at,
  started_at + to_milliseconds(first_byte_ms) AS answered_at,
  CAST(started_at AS DATE) AS on_day,
  team_id, user_id, client,
  coalesce(agent NOT IN ('side', 'compaction'), true) AS is_work,
  agent,
  coalesce(team_id, '') || '|' || coalesce(nullif(session_id, ''), nullif(task_id, '')) AS session,
  CASE WHEN len(tickets) > 0 THEN tickets WHEN ticket_id IS NULL THEN [] ELSE [ticket_id] END AS tickets,
  ticket_source, ticket_state, nullif(trim(branch), '') AS branch, purpose, provider, upstream,
  coalesce(response_model, request_model) AS model, request_model, status, result, lower(finish_reason) AS finish,
  budget_action,
  coalesce(status >= 400, false) OR coalesce(result IN ('upstream_error', 'upstream_cut'), false) AS failed,
  coalesce(result = 'completed', status < 400, true) AS is_ok,
  coalesce(usage_source <> 'none', true) AS is_counted,
  input_tokens,
  greatest(
    coalesce(input_tokens, 0) - coalesce(cache_read_input_tokens, 0) - coalesce(cache_write_input_tokens, 0), 0
  ) AS fresh_tokens,
  coalesce(cache_read_input_tokens, 0) AS cache_read_tokens,
  coalesce(cache_write_input_tokens, 0) AS cache_write_tokens,
  output_tokens, reasoning_output_tokens, max_output_tokens, message_count, tool_count, tool_schema_tokens, tool_calls,
  edits, human_turn, request_hash, prefix_hash, prefix_tokens, action_hash, price_id,
  CAST(CAST(coalesce(contracted_cost_usd, list_cost_usd) AS DECIMAL(28,9)) * 1000000000 AS BIGINT) AS cost_nano,
  CAST(CAST(coalesce(list_cost_usd, contracted_cost_usd) AS DECIMAL(28,9)) * 1000000000 AS BIGINT) AS list_nano,
  input_cost_usd, cache_read_cost_usd, cache_write_cost_usd, output_cost_usd
-- What the gateway itself refused is never waste.
FROM calls, waste_terms
WHERE result IS DISTINCT FROM 'refused'
  AND started_at <= as_of AND started_at > as_of - to_days(CAST(settings.window_days AS INTEGER))
