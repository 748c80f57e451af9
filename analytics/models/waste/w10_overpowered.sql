-- W10: short questions without tools went to a dear model; a cheaper one might do. One row per team, model and UTC day.
-- @kind: Always candidate: it counts in no sum until the cheaper model was tried on such calls
-- @group_key: Team, model and day
-- @ticket_id: Always NULL
-- @calls: The calls, with their cost less that of the same tokens at the cheaper model
-- @numbers: The cheaper model, how many calls
-- @sentence: The same in words
-- Providers write regions, vendors and paths before a model's name; where the name that answered says nothing, as that
-- of a deployment, the one that was asked for does. What is as cheap as the other model is not told.
WITH short AS (
  SELECT
    call_id, started_at, on_day, team_id, provider, model, cost_nano, list_nano, fresh_tokens, cache_read_tokens,
    cache_write_tokens, output_tokens,
    [regexp_replace(lower(name), '^(.*/)?([a-z-]+[.])*', '') FOR name IN [model, request_model]] AS names,
    flatten([
      [e.value FOR e IN map_entries(settings.w10_cheaper) IF name GLOB e.key] FOR name IN names
    ])[1] AS cheaper
  FROM waste_calls, waste_terms
  WHERE is_counted AND is_ok
    AND input_tokens <= settings.w10_input_tokens AND output_tokens <= settings.w10_output_tokens
    AND coalesce(reasoning_output_tokens, 0) = 0 AND coalesce(tool_count, tool_schema_tokens) = 0
    AND coalesce(tool_calls, 0) = 0
),
compared AS (
  SELECT
    short.*,
    cost_nano - (
      CAST(fresh_tokens AS HUGEINT) * input_rate
        + CAST(cache_read_tokens AS HUGEINT) * coalesce(cache_read_rate, input_rate)
        + CAST(cache_write_tokens AS HUGEINT) * coalesce(cache_write_rate, input_rate)
        + CAST(output_tokens AS HUGEINT) * output_rate
    ) // 1000000 * cost_nano // nullif(list_nano, 0) AS nano
  FROM short
    JOIN model_rates AS book ON book.model = short.cheaper AND book.provider IS NOT DISTINCT FROM short.provider
)
SELECT
  'candidate' AS kind,
  concat_ws('|', coalesce(team_id, ''), coalesce(model, ''), on_day) AS group_key,
  NULL AS ticket_id,
  list({call_id: call_id, nano: nano} ORDER BY started_at, call_id) AS calls,
  to_json({cheaper_model: any_value(cheaper), calls: count(*)}) AS numbers,
  format(
    '{} short questions without tools went to {} on {}; {} might do, which nobody has tried yet.',
    count(*), model, on_day, any_value(cheaper)
  ) AS sentence
FROM compared
WHERE nano > 0
GROUP BY team_id, model, on_day
