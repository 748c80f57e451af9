-- What FOCUS rows are made of: calls taken apart by what was metered and by ticket. One row per call, billing month, sign, meter and ticket.
-- @billing_month: First day of the month on whose bill it is
-- @charge_day: UTC day of the call
-- @is_correction: It changes what the bill of an earlier month said
-- @sign: 1, or -1 where a correction takes back what an earlier bill said
-- @model: Model that answered, or was asked for
-- @meter: What was metered: Input Tokens, Cached Input Tokens, Output Tokens, …
-- @unit: Unit of the quantity
-- @quantity_nano: Of that unit, in billionths; negative where a correction takes it back
-- @list_nano: At list price, nano-USD
-- @contracted_nano: After discounts, nano-USD; a call's contracted cost is divided as its list cost is
-- All amounts are whole, and divided so that they sum to the call's: parts of the contracted cost end where the same
-- share of the list cost ends, and the nano-dollars that do not divide by tickets go to the first ones.
WITH signed AS (
  SELECT *, billing_month AS bill, 1 AS sign FROM focus_versions
  UNION ALL BY NAME
  SELECT *, until_month AS bill, -1 AS sign FROM focus_versions WHERE until_month IS NOT NULL
),
nano AS (
  SELECT
    bill, sign, call_id, started_at, upstream, provider, coalesce(response_model, request_model) AS model, service_tier,
    team_id, purpose, repo, price_id, price_status, usage_source, ticket_source, ticket_state, operation,
    CASE WHEN len(tickets) = 0 THEN [NULL] ELSE tickets END AS tickets,
    CAST(coalesce(CAST(list_cost_usd AS DECIMAL(28,9)), 0) * 1000000000 AS HUGEINT) AS list_nano,
    CAST(coalesce(CAST(contracted_cost_usd AS DECIMAL(28,9)), 0) * 1000000000 AS HUGEINT) AS contracted_nano,
    [
      {
        meter: 'Input Tokens', unit: 'Tokens',
        quantity: greatest(0, coalesce(input_tokens, 0) - coalesce(cache_read_input_tokens, 0) - coalesce(cache_write_input_tokens, 0)),
        cost: input_cost_usd
      },
      {meter: 'Cached Input Tokens', unit: 'Tokens', quantity: coalesce(cache_read_input_tokens, 0), cost: cache_read_cost_usd},
      {
        meter: CASE WHEN cache_write_1h_input_tokens = cache_write_input_tokens THEN 'Cache Write Tokens 1h' ELSE 'Cache Write Tokens' END,
        unit: 'Tokens', quantity: coalesce(cache_write_input_tokens, 0), cost: cache_write_cost_usd
      },
      {meter: 'Output Tokens', unit: 'Tokens', quantity: coalesce(output_tokens, 0), cost: output_cost_usd},
      {
        meter: CASE WHEN web_search_requests > 0 THEN 'Web Search Requests' ELSE 'Requests' END, unit: 'Requests',
        quantity: coalesce(web_search_requests, 0), cost: other_cost_usd
      }
    ] AS meters
  FROM signed
  WHERE result IS DISTINCT FROM 'refused'
),
metered AS (
  SELECT * EXCLUDE (meters), list_transform(
    list_filter(meters, lambda m: m.quantity > 0 OR coalesce(m.cost, 0) <> 0),
    lambda m: {
      meter: m.meter, unit: m.unit, quantity: CAST(CASE WHEN m.quantity > 0 THEN m.quantity ELSE 1 END AS HUGEINT) * 1000000000,
      list_nano: CAST(coalesce(CAST(m.cost AS DECIMAL(28,9)), 0) * 1000000000 AS HUGEINT)
    }
  ) AS meters
  FROM nano
),
-- Without a meter, or with a cost that no meter has (a provider's own figure): the request itself is one.
whole AS (
  SELECT * EXCLUDE (meters), CASE
    WHEN len(meters) > 0 AND (list_nano > 0 OR contracted_nano = 0) AND list_sum(list_transform(meters, lambda m: m.list_nano)) = list_nano
    THEN meters
    ELSE [{meter: 'Requests', unit: 'Requests', quantity: CAST(1000000000 AS HUGEINT), list_nano: list_nano}]
  END AS meters
  FROM metered
  WHERE len(meters) > 0 OR list_nano <> 0 OR contracted_nano <> 0 OR price_status = 'unpriced'
),
parts AS (
  SELECT * EXCLUDE (meters, tickets), unnest(tickets) AS ticket_id, generate_subscripts(tickets, 1) AS position, len(tickets) AS ways,
    meters
  FROM whole
),
divided AS (
  SELECT * EXCLUDE (meters, list_nano, contracted_nano),
    unnest(list_transform(range(1, len(meters) + 1), lambda i: {
      meter: meters[i].meter, unit: meters[i].unit, quantity: meters[i].quantity, list_nano: meters[i].list_nano,
      contracted_nano: CASE
        WHEN list_nano = 0 THEN CASE WHEN i = 1 THEN contracted_nano ELSE 0 END
        ELSE contracted_nano * list_sum(list_transform(meters[1:i], lambda m: m.list_nano)) // list_nano
          - contracted_nano * coalesce(list_sum(list_transform(meters[1:i - 1], lambda m: m.list_nano)), 0) // list_nano
      END
    })) AS part
  FROM parts
)
SELECT
  bill AS billing_month,
  CAST(started_at AS DATE) AS charge_day,
  bill <> date_trunc('month', started_at) AS is_correction,
  call_id, sign, upstream, provider, model, service_tier, team_id, purpose, repo, price_id, price_status, usage_source,
  ticket_id, ticket_source, ticket_state, operation,
  part.meter AS meter, part.unit AS unit,
  sign * (part.quantity // ways + CASE WHEN position <= part.quantity % ways THEN 1 ELSE 0 END) AS quantity_nano,
  sign * (part.list_nano // ways + CASE WHEN position <= part.list_nano % ways THEN 1 ELSE 0 END) AS list_nano,
  sign * (part.contracted_nano // ways + CASE WHEN position <= part.contracted_nano % ways THEN 1 ELSE 0 END) AS contracted_nano
FROM divided
