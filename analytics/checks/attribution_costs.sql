-- A correction of a call's attribution changes none of its costs.
SELECT call_id, corrected_at, list_cost_before_usd, list_cost_after_usd
FROM corrections
WHERE cause = 'attribution' AND (list_cost_before_usd, contracted_cost_before_usd)
  IS DISTINCT FROM (list_cost_after_usd, contracted_cost_after_usd)
