-- A call has no cost exactly when it is marked as unpriced.
SELECT call_id, price_status, list_cost_usd
FROM calls
WHERE (list_cost_usd IS NULL) <> (price_status IS NOT DISTINCT FROM 'unpriced')
