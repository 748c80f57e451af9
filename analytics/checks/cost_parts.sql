-- The parts of each call's cost sum to its list cost.
SELECT
  call_id, list_cost_usd, input_cost_usd, cache_read_cost_usd, cache_write_cost_usd, output_cost_usd, other_cost_usd
FROM calls
WHERE list_cost_usd <> coalesce(input_cost_usd, 0) + coalesce(cache_read_cost_usd, 0)
  + coalesce(cache_write_cost_usd, 0) + coalesce(output_cost_usd, 0) + coalesce(other_cost_usd, 0)
