# Reads the table of a cohort and repeats the main models of the group level of bids_muscle.
#
#     Rscript group_models.R
#
# Needs group_wide.csv and group_wide_codebook.csv beside it, and R with nlme, which comes with R.
# Writes group_models_R.csv: one row per model, measure and effect. Columns are explained there.
#
# Repeated: means; paired t of all pairs of muscles; women minus men (ANCOVA with age and BMI);
# partial correlations with age and BMI; change over sessions (mixed model). p_holm is corrected
# for all tests of one model and measure.

here <- sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))
if (length(here)) setwd(dirname(here))

read <- function(file) {
  read.csv(file, check.names = FALSE, na.strings = "", colClasses = "character",
           encoding = "UTF-8")
}
wide <- read("group_wide.csv")
book <- read("group_wide_codebook.csv")
for (name in book$column[book$type == "number"]) wide[[name]] <- as.numeric(wide[[name]])
for (i in seq_len(nrow(book))) attr(wide[[book$column[i]]], "label") <- book$label[i]

# People: the columns that the codebook calls sex, age and bmi.
column_of <- function(role) {
  name <- book$column[!is.na(book$role) & book$role == role]
  if (length(name)) wide[[name[1]]] else rep(NA, nrow(wide))
}
words <- toupper(as.character(column_of("sex")))
sex <- ifelse(words %in% c("F", "FEMALE", "W", "WOMAN"), 1,
              ifelse(words %in% c("M", "MALE", "MAN"), 0, NA))
bmi <- as.numeric(column_of("bmi"))
if (all(is.na(bmi))) {
  height <- as.numeric(column_of("height"))
  height <- ifelse(height > 3, height / 100, height)
  bmi <- as.numeric(column_of("weight")) / height^2
}
people <- data.frame(id = wide$participant_id, sex = sex, age = as.numeric(column_of("age")),
                     bmi = bmi)
people <- people[!duplicated(people$id), ]

# Values: several scans of a session are averaged, then both sides; one side alone is no muscle,
# also where nobody has the other one, whose column is then no number. Both sides outlined as one
# are a muscle of their own.
own <- book[!is.na(book$side), ]
sides_of <- function(own) ave(own$side, own$muscle, FUN = function(x) length(unique(x)))
alone <- own$side == "unsided" & sides_of(own) > 1
own$muscle[alone] <- paste(own$muscle[alone], "(unsided)")
own$sides <- as.numeric(sides_of(own))
sides <- tapply(own$sides, own$muscle, max)
own <- own[own$type == "number", ]
long <- do.call(rbind, lapply(seq_len(nrow(own)), function(i) {
  data.frame(region = wide$region, contrast = wide$contrast, id = wide$participant_id,
             session = ifelse(is.na(wide$session_id), "n/a", wide$session_id),
             measure = own$measure[i], muscle = own$muscle[i], side = own$side[i],
             value = as.numeric(wide[[own$column[i]]]))
}))
long <- long[is.finite(long$value), ]
key <- c("region", "contrast", "measure", "id", "session", "muscle")
long <- aggregate(long["value"], long[c(key, "side")], mean)
count <- aggregate(list(n = long$value), long[key], length)
long <- merge(aggregate(long["value"], long[key], mean), count)
long <- long[long$n == sides[long$muscle], c(key, "value")]

# Where the group level removed differences between sites, it analysed these values alone: people
# without a site or a covariate have none.
harmonised <- "group_stats_harmonised_values.tsv"
if (file.exists(harmonised)) {
  new <- read.delim(harmonised, na.strings = "n/a", quote = "")
  names(new)[match(c("participant_id", "session_id"), names(new))] <- c("id", "session")
  new$session[is.na(new$session)] <- "n/a"
  long <- merge(long, new[c(key, "harmonised")], all.x = TRUE)
  place <- function(x) paste(x$region, x$contrast, x$measure)
  removed <- place(long) %in% place(new)
  long$value[removed] <- long$harmonised[removed]
  long <- long[!is.na(long$value), ]
}

# The first session of each participant; the codebook has their order.
order_text <- book$levels[book$column == "session_id"]
sessions <- if (is.na(order_text)) character() else strsplit(order_text, " < ", fixed = TRUE)[[1]]
rank <- match(long$session, sessions, nomatch = length(sessions) + 1)
unit <- paste(long$region, long$contrast, long$measure, long$id)
long$first <- rank == ave(rank, unit, FUN = min)

rows <- list()
add <- function(model, where, muscle, term, n, estimate, se = NA, p = NA) {
  rows[[length(rows) + 1]] <<- data.frame(model = model, where, muscle = muscle, term = term,
                                          n = n, estimate = estimate, se = se, p = p)
}

terms_of <- function(frame) {
  varies <- function(x) any(!is.na(x)) && length(unique(x[!is.na(x)])) > 1
  names(Filter(varies, frame[c("sex", "age", "bmi")]))
}

models_of <- function(part) {
  where <- part[1, c("region", "contrast", "measure")]
  first <- part[part$first, ]
  muscles <- unique(first$muscle)
  by <- tapply(first$value, list(first$id, first$muscle), mean)
  for (one in muscles) {
    y <- by[is.finite(by[, one]), one]
    add("means", where, one, "mean", length(y), mean(y), sd(y) / sqrt(length(y)))
  }
  if (length(muscles) > 1) for (pair in combn(muscles, 2, simplify = FALSE)) {
    d <- by[, pair[1]] - by[, pair[2]]
    d <- d[is.finite(d)]
    if (length(d) > 4 && sd(d) > 0) {
      test <- t.test(d)
      add("paired_t", where, pair[1], pair[2], length(d), mean(d), test$stderr, test$p.value)
    }
  }
  for (one in muscles) {
    frame <- merge(data.frame(id = rownames(by), y = by[, one]), people)
    terms <- terms_of(frame)
    if (!length(terms)) next
    frame <- frame[complete.cases(frame[c("y", terms)]), ]
    if (nrow(frame) < length(terms) + 5) next
    fit <- summary(lm(reformulate(terms, "y"), frame))
    for (term in terms) {
      found <- fit$coefficients[term, ]
      t <- found["t value"]
      if (term == "sex") {
        add("sex_differences", where, one, "F - M", nrow(frame), found[1], found[2], found[4])
      } else {
        add("pearson", where, one, term, nrow(frame), t / sqrt(t^2 + fit$df[2]), NA, found[4])
      }
    }
  }
  if (length(sessions) > 1) for (one in unique(part$muscle)) {
    own <- part[part$muscle == one & part$session %in% sessions, ]
    frame <- merge(own[c("id", "session", "value")], people)
    terms <- terms_of(frame)
    frame <- frame[complete.cases(frame[c("value", terms)]), ]
    frame$session <- factor(frame$session, intersect(sessions, frame$session))
    n <- length(unique(frame$id))
    later <- nlevels(frame$session) - 1
    if (later < 1 || n < length(terms) + later + 5 || nrow(frame) - n < later + 4) next
    fit <- try(nlme::lme(reformulate(c("session", terms), "value"), frame, ~ 1 | id), TRUE)
    if (inherits(fit, "try-error")) next
    found <- summary(fit)$tTable
    for (term in rownames(found)[-1]) {
      add("mixed_model", where, one, sub("^session", "session ", term), n,
          found[term, "Value"], found[term, "Std.Error"], found[term, "p-value"])
    }
  }
}
for (part in split(long, list(long$region, long$contrast, long$measure), drop = TRUE)) {
  models_of(part)
}
result <- do.call(rbind, rows)
family <- paste(result$model, result$region, result$contrast, result$measure)
result$p_holm <- ave(result$p, family, FUN = function(p) p.adjust(p, "holm"))
write.csv(result, "group_models_R.csv", row.names = FALSE, na = "")
print(result[!is.na(result$p_holm) & result$p_holm < 0.05, ], digits = 3, row.names = FALSE)
