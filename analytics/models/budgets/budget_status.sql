-- How budgets stand in their present period. One row per budget; of each_ticket and each_task one per ticket and task with calls in it, of each_team per team.
-- @value: What is after the colon of the scope; of a template the ticket or task whose account it is; NULL for org, for each_user and each_key, and for a template without accounts yet
-- @limit_usd: Limit of the period, with the raises that are in force, USD; of each_user and each_key that of each
-- @spent_usd: What the period's calls count, USD; of each_user and each_key of all together
-- @remaining_usd: What is left of the limit, calls in flight not taken off, USD; below 0 where more was spent; NULL for each_user and each_key
-- @unpriced_calls: Calls without a price; they are not in spent_usd
-- @used: Spent fraction of the limit; NULL for each_user and each_key, and where the limit is 0
-- @forecast_usd: What the whole period will come to when the rest of it goes as it went up to now, USD. Nothing else is looked at: no weekends, no trend, no unpriced calls. NULL until a tenth of the period is over, for periods without an end, and for each_user and each_key
-- @accounts: Accounts that there are: of each_user and each_key their number, else 1, or 0 for a template without accounts yet
-- @accounts_over: How many of them have spent their limit or more
-- Users are counted, not listed, nor are keys, which are a person's: each_user and each_key have one row. A budget for a user that somebody named is one
-- like any other.
WITH spent AS (
  SELECT
    name, value,
    sum(charged_usd) AS spent_usd,
    count(*) FILTER (WHERE charged_usd IS NULL) AS unpriced_calls
  FROM budget_charges
  GROUP BY name, value
),
accounts AS (
  SELECT
    name,
    spent.value AS account,
    terms.kind IN ('user', 'key') AND terms.value IS NULL AS is_counted,
    terms.value IS NOT NULL OR spent.value IS NOT NULL AS is_there,
    spent_usd,
    unpriced_calls,
    limit_usd + coalesce(list_sum([r.amount_usd for r in raises if r.until_at > as_of AND r.value IS NULL]), 0)
      AS limit_of_all,
    coalesce(list_sum([r.amount_usd for r in raises if r.until_at > as_of AND r.value = spent.value]), 0) AS raised_usd
  FROM budget_terms AS terms LEFT JOIN spent USING (name)
),
shown AS (
  SELECT
    name,
    is_counted,
    CASE WHEN NOT is_counted THEN account END AS account,
    any_value(CASE WHEN is_counted THEN limit_of_all ELSE limit_of_all + raised_usd END) AS limit_usd,
    CAST(coalesce(sum(spent_usd), 0) AS DECIMAL(38,9)) AS spent_usd,
    CAST(coalesce(sum(unpriced_calls), 0) AS BIGINT) AS unpriced_calls,
    count(*) FILTER (WHERE is_there) AS accounts,
    count(*) FILTER (WHERE is_there AND coalesce(spent_usd, 0) >= limit_of_all + raised_usd) AS accounts_over
  FROM accounts
  GROUP BY name, is_counted, CASE WHEN NOT is_counted THEN account END
)
SELECT
  name, scope, coalesce(nullif(value, ''), nullif(account, '')) AS value, period, period_start, period_end,
  shown.limit_usd, spent_usd,
  CASE WHEN NOT is_counted THEN shown.limit_usd - spent_usd END AS remaining_usd,
  unpriced_calls,
  CASE WHEN NOT is_counted THEN CAST(spent_usd AS DOUBLE) / nullif(CAST(shown.limit_usd AS DOUBLE), 0) END AS used,
  CASE WHEN NOT is_counted AND 10 * epoch(as_of - period_start) >= epoch(period_end - period_start)
    THEN CAST(
      CAST(
        CAST(CAST(spent_usd AS DECIMAL(28,9)) * 1000000000 AS HUGEINT)
          * CAST(epoch(period_end - period_start) AS BIGINT) // CAST(epoch(as_of - period_start) AS BIGINT)
        AS DECIMAL(28,0)
      ) * 0.000000001 AS DECIMAL(38,9)
    )
  END AS forecast_usd,
  mode, on_exceed, owner, accounts, accounts_over
FROM budget_terms JOIN shown USING (name)
