-- What is stored of each statement.
SELECT statement, sum(amount_usd) AS amount_usd, coalesce(bool_and(is_final), false) AS is_final
FROM invoice_lines
GROUP BY statement
