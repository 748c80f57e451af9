-- What is stored of each statement that may be replaced.
SELECT statement, provider, account, day, sum(amount_usd) AS amount_usd, coalesce(bool_and(is_final), false) AS is_final
FROM invoice_lines
GROUP BY ALL
