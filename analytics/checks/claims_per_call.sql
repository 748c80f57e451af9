-- Waste claims of a call at most what was paid for it, once, and what its parts sum to.
SELECT call_id, count(*) AS times, sum(claimed_usd) AS claimed_usd, max(cost_usd) AS cost_usd
FROM waste_claimed
GROUP BY call_id
HAVING count(*) > 1 OR sum(claimed_usd) > max(cost_usd)
  OR bool_or(claimed_usd IS DISTINCT FROM list_sum([part.claimed_usd FOR part IN parts]))
