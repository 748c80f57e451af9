-- Which tickets cost most after they were done?
SELECT ticket_id, title, outcome, done_at, after_done_usd, list_cost_usd, unpriced_calls
FROM ticket_costs
WHERE after_done_usd > 0
ORDER BY after_done_usd DESC
LIMIT 50
