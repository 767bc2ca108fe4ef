"""How German asks, in the form of `english_frames`."""

#: Dropped at the beginning of a sentence, again and again.
COURTESY = r"""
(?:hallo|hi|hey|guten (?:tag|morgen|abend)|servus|moin)\b[,!.:]* | (?:bitte|also|ok|okay|danke|entschuldigung
  |verzeihung|sorry|mal)\b[,!.:]*
|(?:(?:kannst|könntest|würdest) du|(?:können|könnten|würden) sie|kann|könnte) (?:mir |uns )?(?:jemand )?(?:bitte[ ]
  |mal |kurz |vielleicht )*
   (?=sagen|erklären|verraten|zeigen|helfen|nennen|beschreiben|erläutern|mitteilen|geben)
|(?:(?:weißt du|wissen sie|weiß jemand)(?: zufällig)?,?) | (?:ich (?:möchte|würde|will|wüsste
  |hätte)(?: gerne?)? (?:wissen|erfahren|verstehen|fragen)(?: gerne?)?,?)
|(?:ich wüsste gerne?,?) | (?:ich frage mich,?) | (?:mich interessiert,?) | (?:meine frage ist[:,]?
  |ich habe eine frage[:,.]?)
|(?:(?:sag|sage|sagen sie|verrate|verraten sie|erzähl|erzähle|teile?n? sie) (?:mir|uns)(?: bitte| mal| doch)*,?)
|(?:sagen,?|verraten,?|mitteilen,?)
"""

#: Dropped at the end of a sentence.
FAREWELL = r""",?\s*\b(?:bitte|danke|vielen dank|danke schön|danke im voraus|wenn möglich|für mich)"""

#: What stands for a part of many patterns.
PARTS = {
    "who": r"(?:ich|man|wir|du|sie|jemand)",
    "way": r"(?:weg|möglichkeit|methode|art|weise|vorgehensweise|schritte?|anleitung|verfahren)",
}

FRAMES = r"""
how-to: (?:gib mir |ich brauche |ich suche |was ist )?(?:ein |das )?(?:gutes |einfaches )?rezept (?:für|von)\b => machen
when-time: wie spät ist es\b|wie ?viel uhr ist es\b
how-to: wie (?:genau )?(?:kann|könnte|soll|sollte|muss|darf|können|müssen|sollten|würde) <who>(?: am besten)?\b
how-to: wie (?:lässt|lassen) (?:sich|man)\b
how-to: was (?:muss|soll|sollte|kann) <who> (?:tun|machen|unternehmen),? um\b
how-to: (?:was ist|welches ist|gibt es) (?:der|die|das|eine|einen|den)? ?(?:beste |besten |einfachste[ ]
  |richtige )?<way>,? (?:um)?\b
how-to: (?:welche|was sind die) schritte (?:sind nötig|sind notwendig|muss ich befolgen|braucht es)?,? ?(?:um|zum
  |zur)?\b
how-to: auf welche(?:m)? (?:weise|weg|art)(?: und weise)? (?:kann|könnte) <who>\b
how-to: (?:erklär|erkläre|erklären sie|zeig|zeige|zeigen sie|beschreib|beschreibe)(?: mir
  | uns)?(?: bitte)?,? wie <who>\b
how-to: (?:zeigen|erklären|beschreiben|helfen),? wie <who>\b
how-to: (?:hilf|helfen sie) mir(?: bitte)?(?: dabei)?,?
how-to: ich brauche hilfe (?:beim|bei|mit)\b
how-to: ich (?:möchte|will|würde gerne?|muss)\b
how-to: (?:gib mir )?(?:eine )?(?:kurze )?anleitung (?:zum|zur|für|um)\b
how-to: wie (\w+) <who>\b => \1
# Sizes and amounts.
what: wie viele (?:menschen|einwohner|leute|personen) (?:leben|wohnen|gibt es) in\b => bevölkerung von
what: wie viele einwohner hat\b => bevölkerung von
what: wie alt (?:ist|sind|war|wurde)\b => alter von
what: wie hoch (?:ist|sind|war) (?:der|die) (?=preis|kosten)
what: wie hoch (?:ist|sind|war)\b => höhe von
what: wie groß (?:ist|sind|war)\b => größe von
what: wie schwer (?:ist|sind|war)\b => gewicht von
what: wie viel wiegt\b|wieviel wiegt\b => gewicht von
what: wie schnell (?:ist|sind|fährt|läuft)\b => geschwindigkeit von
what: wie weit ist es von\b => entfernung von
what: (?:was|wie ?viel) kostet(?: es| mich)?(?: ein| eine| einen)?\b => preis von
what: (?:was|wie ?viel) kosten\b => preis von
what: wie teuer (?:ist|sind|war)\b => preis von
what: wie (?:lange|viel zeit) (?:dauert es|braucht es|braucht man|brauche ich|benötigt man|dauert)(?:,? bis
  |,? um)?\b => dauer von
what: wie lange (?:muss|müssen|soll|sollte|sollten|kann|darf|hat|ist) ?(?:<who>)?\b => dauer von
what: wie (?:oft|häufig) (?:muss|soll|sollte|kann|darf|sollten|müssen)(?: <who>)?\b => häufigkeit von
how-many: wie ?viele\b
how-many: (?:was ist|wie hoch ist|wie groß ist) die (?:an)?zahl (?:der|an|von)\b
how-many: welche anzahl\b
how-much: wie ?viel\b
# Why, when, where, who.
why: (?:erkläre?(?: mir)?,? )?(?:warum|weshalb|wieso)\b
why: aus welche[mn] gr[uü]nd(?:en)?\b
why: (?:was ist|was sind|was war|was waren|welches sind|nenne)(?: mir)? (?:der|die|den|das) (?:grund|gründe
  |ursachen?)(?: dafür)?,? ?(?:dass|für|warum|von|des|der)?\b
why: wie kommt es,? dass|woran liegt es,? dass|was (?:verursacht|führt zu)\b
when-year: (?:in welchem|seit welchem) jahr\b
when-time: um (?:wie ?viel uhr|welche uhrzeit)\b|zu welcher (?:uhr)?zeit\b
when-day: an welchem (?:tag|datum)\b
since-when: seit wann\b
until-when: bis wann\b
when: wann\b
where: an welchem ort\b|wo\b
where-to: wohin\b
where-from: woher\b
where: in welche[rm] (?=stadt|land|bundesland)
who: welche person\b|wer\b
whom: wen\b
to-whom: wem\b
whose: wessen\b
name: wie (?:heißt|lautet|heißen|ist) (?:der|die|das) namen? (?:der|des|von)\b
name: wie (?:heißt|heißen)\b
how: wie (?:lautet|lauten|ist|sind)\b
how: wie\b
how: (?:erkläre?(?: mir)?,? )?wie\b
# Yes or no.
whether: (?:ist es|stimmt es|trifft es)(?: wahr| richtig| zu)?,? dass\b
whether: ob\b
whether-can: (?:kann|könnte|können|darf|dürfen|könnten|dürfte)(?: <who>)?\b
whether-can: ist es (?:möglich|erlaubt|in ordnung|okay|gestattet),?\b
whether-should: (?:soll|sollte|sollten)(?: <who>)?\b
whether-should: ist es (?:ratsam|sinnvoll|empfehlenswert),?\b
whether-must: (?:muss|müssen)(?: <who>)?\b|ist es (?:nötig|notwendig|erforderlich),?\b
whether: (?:ist|sind|war|waren|hat|haben|wird|werden|gibt es|habe|bin)\b
# What.
do: (?:schreib|schreibe|verfasse|erstelle|erstell|generiere|formuliere|schreiben|erstellen)(?: sie)?(?: mir
  | uns)?(?: bitte)?(?: eine?n?)?\b(?! um\b)
what: (?:berechne|berechnen sie|rechne aus)\b
what: was (?:bedeutet|bedeuten|heißt|versteht man unter|ist mit|meint man mit|besagt)\b
what: was ist (?:die )?(?:bedeutung|definition) (?:von|des|der)\b
explain: (?:erklär|erkläre|erklären sie|erläutere?|definiere|beschreibe?|erklären|beschreiben|erläutern)(?: mir
  | uns)?(?: bitte| kurz| mal)*,?(?: was)?(?: (?:den begriff|das konzept))?\b
what: (?:nenne|nenn|nennen sie|liste|zähle|gib|geben sie|zeige|zeig|nennen|geben|zeigen)(?: mir| uns)?(?: bitte)?\b
what: (?:was|welche[rsnm]?|woraus|womit|wofür)\b(?: (?:ist|sind|war|waren)\b)?
"""
